"""What a file system without locks does to SQLite: four processes add rows to one table, with and without locks.

SQLite itself switches its locks off here (`vfs=unix-none`); many NFS, Lustre and FUSE mounts do so without a word.
"""

import multiprocessing
import sqlite3
import sys
import tempfile
from pathlib import Path

PROCESSES, ROWS = 4, 100


def add_rows(uri, writer):
    base = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)
    for n in range(ROWS):
        try:
            base.execute("INSERT INTO trials VALUES (?, ?)", (writer, n))
        except sqlite3.DatabaseError as error:
            print(f"    process {writer}, row {n}: {error}")
            return


def count(options):
    """Rows in the table after all processes have ended, or what is wrong with the file."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"{Path(folder, 'store.db').as_uri()}?{options}"
        with sqlite3.connect(uri, uri=True) as base:
            base.execute("CREATE TABLE trials (writer, n)")
        base.close()
        writers = [multiprocessing.Process(target=add_rows, args=(uri, n)) for n in range(PROCESSES)]
        for one in writers:
            one.start()
        for one in writers:
            one.join()
        base = sqlite3.connect(uri, uri=True)
        try:
            broken = base.execute("PRAGMA integrity_check").fetchone()[0]
            rows = base.execute("SELECT count(*) FROM trials").fetchone()[0]
        except sqlite3.DatabaseError as error:
            broken, rows = str(error), 0
        base.close()
    return f"{rows} of {PROCESSES * ROWS} rows; " + ("intact" if broken == "ok" else "DAMAGED")


if __name__ == "__main__":
    print("with locks:   ", count("mode=rwc"), flush=True)
    print("without locks:", count("mode=rwc&vfs=unix-none"))
    sys.exit(0)
