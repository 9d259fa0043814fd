"""A SQLite database that knows what it is to hold: its rows have digests, its accounts a sum, its commits numbers.

usage: database.py make PATH MODE MIB | write PATH MODE WRITER | read PATH MMAP | check PATH
"""

import hashlib
import os
import random
import sqlite3
import sys
import time

ACCOUNTS = 100
BALANCE = 1000
ROW = 3000
# Between two transactions, as who waits for a lock of SQLite's asks for it ten times a second only, and would hardly get it.
PAUSE = 0.02


def row():
    data = os.urandom(ROW)
    return data, hashlib.sha256(data).digest()


def make(path, mode, mib):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode={mode}")
    db.execute("PRAGMA synchronous=OFF")
    db.execute("BEGIN")
    db.execute("CREATE TABLE pages (id INTEGER PRIMARY KEY, data BLOB, digest BLOB)")
    db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER)")
    db.execute("CREATE TABLE commits (writer TEXT, number INTEGER, PRIMARY KEY (writer, number))")
    rows = int(mib) * (1 << 20) // ROW
    db.executemany("INSERT INTO pages (data, digest) VALUES (?, ?)", (row() for _ in range(rows)))
    db.executemany("INSERT INTO accounts (balance) VALUES (?)", [(BALANCE,)] * ACCOUNTS)
    db.execute("COMMIT")
    db.close()


def write(path, mode, writer):
    """Commits until it is killed, and says so of each commit."""
    db = sqlite3.connect(path, timeout=100, isolation_level=None)
    db.execute(f"PRAGMA journal_mode={mode}")
    # A small cache, so that pages are written out before the commit too.
    db.execute("PRAGMA cache_size=10")
    db.execute("PRAGMA synchronous=FULL")
    (rows,) = db.execute("SELECT max(id) FROM pages").fetchone()
    number = 0
    while True:
        number += 1
        db.execute("BEGIN IMMEDIATE")
        for _ in range(20):
            db.execute("UPDATE pages SET data = ?, digest = ? WHERE id = ?", (*row(), random.randint(1, rows)))
        source, target = random.sample(range(1, ACCOUNTS + 1), 2)
        db.execute("UPDATE accounts SET balance = balance - 7 WHERE id = ?", (source,))
        db.execute("UPDATE accounts SET balance = balance + 7 WHERE id = ?", (target,))
        db.execute("INSERT INTO commits VALUES (?, ?)", (writer, number))
        db.execute("COMMIT")
        print(number, flush=True)
        time.sleep(PAUSE)


def check_sum(db):
    (total,) = db.execute("SELECT sum(balance) FROM accounts").fetchone()
    assert total == ACCOUNTS * BALANCE, f"the accounts hold {total}"


def check_digests(rows):
    for number, data, digest in rows:
        assert hashlib.sha256(data).digest() == digest, f"row {number} is not what was written"


def read(path, mmap):
    """Reads until it is killed, and says how many commits it has seen."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=100, isolation_level=None)
    db.execute(f"PRAGMA mmap_size={mmap}")
    db.execute("PRAGMA cache_size=10")
    (rows,) = db.execute("SELECT max(id) FROM pages").fetchone()
    seen = 0
    while True:
        db.execute("BEGIN")
        check_sum(db)
        ids = [random.randint(1, rows) for _ in range(20)]
        check_digests(db.execute(f"SELECT * FROM pages WHERE id IN ({','.join(map(str, ids))})"))
        (count,) = db.execute("SELECT count(*) FROM commits").fetchone()
        db.execute("COMMIT")
        assert count >= seen, f"{count} commits after {seen}"
        seen = count
        print(seen, flush=True)
        time.sleep(PAUSE)


def check(path):
    """Looks at all of it, and prints how many commits of each writer there are."""
    db = sqlite3.connect(path, timeout=100, isolation_level=None)
    found = db.execute("PRAGMA integrity_check").fetchall()
    assert found == [("ok",)], found
    check_sum(db)
    check_digests(db.execute("SELECT * FROM pages"))
    for writer, count, last in db.execute("SELECT writer, count(*), max(number) FROM commits GROUP BY writer"):
        assert count == last, f"of {last} commits of {writer} there are {count}"
        print(writer, count)


if __name__ == "__main__":
    {"make": make, "write": write, "read": read, "check": check}[sys.argv[1]](*sys.argv[2:])
