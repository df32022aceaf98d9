-- The journal's schema, version 3: what a new file is made from. The steps from older versions are in migrations/,
-- and a test holds that both roads end at the same schema.
--
-- The aim of its shape: a commit of one record writes one page. So the record tables have no index beside the row
-- id, numbers are found again from the last rows, and what changes seldom stands in tables of its own.

-- Facts about the file: machine (hash of the machine id), conn_floor (no connection number at or below it), clocks
-- (JSON of model::clock::Clocks, changed in the commit of each clock record).
CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Epochs, oldest first. A record belongs to the last row whose *_from is at most its sequence number.
CREATE TABLE epoch (
  n INTEGER PRIMARY KEY,
  epoch TEXT NOT NULL,             -- 16 hexadecimal digits, random
  alarm_from INTEGER NOT NULL,     -- first sequence number of each class that belongs to it
  event_from INTEGER NOT NULL,
  telemetry_from INTEGER NOT NULL,
  wall_ms INTEGER NOT NULL,        -- when it began, as the wall clock said
  reason TEXT NOT NULL             -- why it began, for a person
) STRICT;

-- Boot ids, so that a record bears a small number.
CREATE TABLE boot (
  id INTEGER PRIMARY KEY,
  boot TEXT NOT NULL UNIQUE
) STRICT;

-- Highest sequence number and position that ever stood in rows now deleted; kept by the triggers below, so that no
-- number is given twice however much is forgotten.
CREATE TABLE water (
  class TEXT PRIMARY KEY,
  seq INTEGER NOT NULL,
  pos INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO water (class, seq, pos) VALUES ('alarm', 0, 0), ('event', 0, 0), ('telemetry', 0, 0);

-- Changes in the life of alarms.
CREATE TABLE alarm (
  seq INTEGER PRIMARY KEY,
  pos INTEGER NOT NULL,            -- place in the one order of all records, monotone in seq
  boot INTEGER NOT NULL,           -- boot.id
  mono_ms INTEGER NOT NULL,
  wall_ms INTEGER NOT NULL,
  trust INTEGER NOT NULL,          -- 0 none, 1 rtc, 2 platform, 3 ntp
  test INTEGER NOT NULL,           -- 1: walk test, drill or maintenance
  category TEXT,
  severity INTEGER,                -- 1 warning, 2 minor, 3 major, 4 critical
  device TEXT,
  body TEXT NOT NULL               -- JSON
) STRICT;

-- What happened; gap records too.
CREATE TABLE event (
  seq INTEGER PRIMARY KEY,
  pos INTEGER NOT NULL,
  boot INTEGER NOT NULL,
  mono_ms INTEGER NOT NULL,
  wall_ms INTEGER NOT NULL,
  trust INTEGER NOT NULL,
  test INTEGER NOT NULL,
  category TEXT,
  severity INTEGER,
  device TEXT,
  body TEXT NOT NULL
) STRICT;

-- Values.
CREATE TABLE telemetry (
  seq INTEGER PRIMARY KEY,
  pos INTEGER NOT NULL,
  boot INTEGER NOT NULL,
  mono_ms INTEGER NOT NULL,
  wall_ms INTEGER NOT NULL,
  trust INTEGER NOT NULL,
  test INTEGER NOT NULL,
  category TEXT,
  severity INTEGER,
  device TEXT,
  body TEXT NOT NULL
) STRICT;

CREATE TRIGGER alarm_forgotten AFTER DELETE ON alarm BEGIN
  UPDATE water SET seq = max(seq, OLD.seq), pos = max(pos, OLD.pos) WHERE class = 'alarm';
END;
CREATE TRIGGER event_forgotten AFTER DELETE ON event BEGIN
  UPDATE water SET seq = max(seq, OLD.seq), pos = max(pos, OLD.pos) WHERE class = 'event';
END;
CREATE TRIGGER telemetry_forgotten AFTER DELETE ON telemetry BEGIN
  UPDATE water SET seq = max(seq, OLD.seq), pos = max(pos, OLD.pos) WHERE class = 'telemetry';
END;

-- The last de-duplication keys of each device, a ring of DEDUP_KEYS_PER_DEVICE slots.
CREATE TABLE dedup (
  device TEXT NOT NULL,
  slot INTEGER NOT NULL,           -- n modulo the ring's length
  n INTEGER NOT NULL,              -- counts the device's keys from 0
  key BLOB NOT NULL,               -- first 16 bytes of the key's SHA-256
  PRIMARY KEY (device, slot)
) STRICT, WITHOUT ROWID;

-- Uplinks: the last connection number given out, and where each stands.
CREATE TABLE uplink (
  name TEXT PRIMARY KEY,
  conn INTEGER NOT NULL DEFAULT 0,
  cursors TEXT                     -- JSON of model::cursor::Cursors
) STRICT, WITHOUT ROWID;

-- The last COMMAND_IDS_KEPT commands of each uplink and what became of them.
CREATE TABLE command (
  n INTEGER PRIMARY KEY,
  uplink TEXT NOT NULL,
  id TEXT NOT NULL,
  body_hash BLOB NOT NULL,         -- 32 bytes: the same id with another body is a conflict
  outcome TEXT,                    -- JSON; none while it is being done
  UNIQUE (uplink, id)
) STRICT;

-- What the rows of each class with seq <= upto take, so that a start counts only those behind: records, and bytes as
-- store/budget.rs reckons them.
CREATE TABLE usage (
  class TEXT PRIMARY KEY,
  upto INTEGER NOT NULL,
  records INTEGER NOT NULL,
  bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What was forgotten since the file began, by cause: 'thinned to one in N s', 'dropped', 'expired'.
CREATE TABLE forgotten (
  class TEXT NOT NULL,
  cause TEXT NOT NULL,
  records INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (class, cause)
) STRICT, WITHOUT ROWID;

-- Up to where telemetry was thinned by each step.
CREATE TABLE thinned (
  older_than_h INTEGER NOT NULL,
  keep_every_s INTEGER NOT NULL,
  upto INTEGER NOT NULL,
  PRIMARY KEY (older_than_h, keep_every_s)
) STRICT, WITHOUT ROWID;

-- The last gap record for each uplink and cause. While it is not delivered the next one takes its place.
CREATE TABLE gap (
  uplink TEXT NOT NULL,
  class TEXT NOT NULL,
  cause TEXT NOT NULL,
  seq INTEGER NOT NULL,            -- event.seq
  oldest_ms INTEGER,               -- stamps of what is missing, where they can be trusted
  newest_ms INTEGER,
  PRIMARY KEY (uplink, class, cause)
) STRICT, WITHOUT ROWID;

-- State of the pipeline: its rows as they stood at the last commit (model::journal::Fold).
CREATE TABLE fold (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
