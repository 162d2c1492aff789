import sqlite3
from pathlib import Path

from datasette.app import Datasette

FILE = Path(__file__).with_suffix(".db")
with sqlite3.connect(FILE) as database:
    database.execute("create table if not exists numbers (number integer primary key)")
    database.execute("insert or replace into numbers values (7)")
database.close()

app = Datasette([str(FILE)]).app()
