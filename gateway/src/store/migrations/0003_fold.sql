-- From version 2 to 3: the state of the pipeline.
CREATE TABLE fold (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
