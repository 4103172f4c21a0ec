from benchmarks import flops
from benchmarks.problems import Block, Shape, dense


def test_dense_shapes_compute_the_triangle_once_and_every_pair_again():
    shape = dense(1024, 64)
    assert flops.tiled(shape) == 5 * 1024**2 * 64
    assert flops.exponentials(shape) == 1024**2 * 3 // 2


def test_rows_of_the_background_meet_anchors_alone():
    block = Block(points=100, anchors=10)
    assert flops.forward_pairs(block) == 10 * 100 - 50
    assert flops.backward_pairs(block) == 10 * 100 + 90 * 10


def test_tiled_never_exceeds_dense_where_points_are_few():
    sparse = Shape("sparse", "sparse", 2, 16, 24, 20, 4, 0.2, 8)
    assert 0 < flops.tiled(sparse) < flops.dense(sparse)
