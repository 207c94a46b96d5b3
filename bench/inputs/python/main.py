"""pylint as a long-running service under ddtrace's profiler, which writes a pprof file each interval.

Usage: DD_PROFILING_OUTPUT_PPROF=PREFIX DD_PROFILING_UPLOAD_INTERVAL=SECONDS python main.py (the files are zstd frames)
It reads the sources of pylint's own packages, one after the other in three threads, with pauses between.
"""

import io
import pathlib
import threading
import time

import astroid
import pylint
from ddtrace.profiling import Profiler
from pylint.lint import Run
from pylint.reporters.text import TextReporter

LOCK = threading.Lock()


def lint(files, at, step):
    while True:
        with LOCK:
            Run([str(files[at % len(files)]), "--disable=all", "--enable=E,W"], reporter=TextReporter(io.StringIO()), exit=False)
        at += step
        time.sleep(2 + at % 5)


def main():
    Profiler().start()
    files = sorted(file for package in (pylint, astroid) for file in pathlib.Path(package.__file__).parent.rglob("*.py"))
    threads = [threading.Thread(target=lint, args=(files, at, 3), name=f"reader-{at}", daemon=True) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
