# Pickles, shelves and deep copies.
# stdout: "{'a': [1, 2]} [1] True\n"
# files: kept.db
import copy
import dbm.dumb
import pickle
import sqlite3

made = {"a": [1, 2]}
with open("/dev/null", "wb") as file:
    pickle.dump(made, file)
other = copy.deepcopy(made)
other["a"].append(3)
store = sqlite3.connect("kept.db")
store.execute("CREATE TABLE t(v BLOB)")
store.execute("INSERT INTO t VALUES(?)", (pickle.dumps([1]),))
store.commit()
print(made, pickle.loads(store.execute("SELECT v FROM t").fetchone()[0]), bool(dbm.dumb))
store.close()
