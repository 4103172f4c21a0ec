from benchmarks import flops
from benchmarks.problems import Shape, dense


def test_dense_shapes_compute_the_triangle_once_and_every_pair_again():
    assert flops.tiled(dense(1024, 64)) == 5 * 1024**2 * 64


def test_tiled_never_exceeds_dense_where_points_are_few():
    sparse = Shape("sparse", "sparse", 2, 16, 24, 20, 4, 0.2, 8)
    assert 0 < flops.tiled(sparse) < flops.dense(sparse)
