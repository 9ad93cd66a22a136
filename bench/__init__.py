"""Benchmarks of the agent kernel beside what the same machine does without it; `agent-kernel bench`.

    environment     what this machine is, and what makes its numbers doubtful
    controls        what the machine itself costs: an empty process, a raw append + fdatasync, an empty SQLite commit
    interleave      the frame: contenders in turn, rounds, ratios inside one run
    report          text, JSON, one self-contained HTML page
    bench_*         one file per subject

A number from here is a ratio to a control of the same run, or it is nothing: no file asserts a time.
"""
