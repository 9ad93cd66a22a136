# Fills a database in WAL mode from two connections and asks it.
# stdout: "[('b', 3), ('a', 1)]\n"
# files: shop.db
import sqlite3

with sqlite3.connect("shop.db") as one, sqlite3.connect("shop.db", timeout=5) as two:
    one.execute("PRAGMA journal_mode=WAL")
    one.execute("CREATE TABLE orders(name TEXT, amount INTEGER)")
    one.commit()
    two.executemany("INSERT INTO orders VALUES(?, ?)", [("a", 1), ("b", 3)])
    two.commit()
    print(one.execute("SELECT * FROM orders ORDER BY amount DESC").fetchall())
one.close()
two.close()
