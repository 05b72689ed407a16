"""The benchmarks that are too long to run here still fit the code."""

import scaling


def test_every_probe_of_scaling_measures_something(tmp_path):
    numbers = {"listing": 2048, "rows": 2048, "walk": 1000, "plan": 100, "names": 100}
    for probe in scaling.PROBES:  # in order: some read what others wrote
        if probe not in ("given", "ray"):  # these start a Ray of their own
            told = scaling.PROBES[probe](tmp_path, numbers.get(probe, 2))
            assert all(figure > 0 for figure in told.values()), probe
