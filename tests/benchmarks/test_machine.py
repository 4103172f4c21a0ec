from benchmarks import machine


def test_what_the_system_keeps_of_files_is_available(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemFree:  3 kB\nMemAvailable:  7 kB\n")
    monkeypatch.setattr(machine, "MEMORY", tmp_path / "meminfo")
    assert machine.available_bytes() == 7 * 1024


def test_without_proc_what_is_free_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "MEMORY", tmp_path / "none")
    assert machine.available_bytes() > 2**20
