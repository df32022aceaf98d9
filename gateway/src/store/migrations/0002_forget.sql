-- From version 1 to 2: what is needed to forget.
CREATE TABLE usage (
  class TEXT PRIMARY KEY,
  upto INTEGER NOT NULL,
  records INTEGER NOT NULL,
  bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE forgotten (
  class TEXT NOT NULL,
  cause TEXT NOT NULL,
  records INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (class, cause)
) STRICT, WITHOUT ROWID;
CREATE TABLE thinned (
  older_than_h INTEGER NOT NULL,
  keep_every_s INTEGER NOT NULL,
  upto INTEGER NOT NULL,
  PRIMARY KEY (older_than_h, keep_every_s)
) STRICT, WITHOUT ROWID;
CREATE TABLE gap (
  uplink TEXT NOT NULL,
  class TEXT NOT NULL,
  cause TEXT NOT NULL,
  seq INTEGER NOT NULL,
  oldest_ms INTEGER,
  newest_ms INTEGER,
  PRIMARY KEY (uplink, class, cause)
) STRICT, WITHOUT ROWID;
