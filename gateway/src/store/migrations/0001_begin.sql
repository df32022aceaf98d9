-- From nothing to version 1. Frozen with its release: later changes are later files.
CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE epoch (
  n INTEGER PRIMARY KEY,
  epoch TEXT NOT NULL,
  alarm_from INTEGER NOT NULL,
  event_from INTEGER NOT NULL,
  telemetry_from INTEGER NOT NULL,
  wall_ms INTEGER NOT NULL,
  reason TEXT NOT NULL
) STRICT;
CREATE TABLE boot (
  id INTEGER PRIMARY KEY,
  boot TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE water (
  class TEXT PRIMARY KEY,
  seq INTEGER NOT NULL,
  pos INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO water (class, seq, pos) VALUES ('alarm', 0, 0), ('event', 0, 0), ('telemetry', 0, 0);
CREATE TABLE alarm (
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
CREATE TABLE dedup (
  device TEXT NOT NULL,
  slot INTEGER NOT NULL,
  n INTEGER NOT NULL,
  key BLOB NOT NULL,
  PRIMARY KEY (device, slot)
) STRICT, WITHOUT ROWID;
CREATE TABLE uplink (
  name TEXT PRIMARY KEY,
  conn INTEGER NOT NULL DEFAULT 0,
  cursors TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE command (
  n INTEGER PRIMARY KEY,
  uplink TEXT NOT NULL,
  id TEXT NOT NULL,
  body_hash BLOB NOT NULL,
  outcome TEXT,
  UNIQUE (uplink, id)
) STRICT;
