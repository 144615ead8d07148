-- The tables that imagegate made at state version 1 (commit 68663e3), as SQLite keeps them.
BEGIN TRANSACTION;
CREATE TABLE freezes (
  id INTEGER NOT NULL,
  product VARCHAR(120) NOT NULL,
  mix_digest VARCHAR(80) NOT NULL,
  owner VARCHAR(200) NOT NULL,
  reason TEXT NOT NULL,
  run_id VARCHAR(80),
  from_at VARCHAR(32) NOT NULL,
  until_at VARCHAR(32) NOT NULL,
  released_at VARCHAR(32),
  released_by VARCHAR(200),
  PRIMARY KEY (id)
);
CREATE TABLE generation_cache (
  mix_digest VARCHAR(80) NOT NULL,
  case_digest VARCHAR(80) NOT NULL,
  seed BIGINT NOT NULL,
  generation TEXT NOT NULL,
  PRIMARY KEY (mix_digest, case_digest, seed)
);
CREATE TABLE journal (
  run_id VARCHAR(80) NOT NULL,
  arm VARCHAR(20) NOT NULL,
  case_id VARCHAR(200) NOT NULL,
  generation TEXT NOT NULL,
  findings TEXT,
  PRIMARY KEY (run_id, arm, case_id)
);
CREATE TABLE ledger (
  idempotency_key VARCHAR(200) NOT NULL,
  run_id VARCHAR(80) NOT NULL,
  day VARCHAR(10) NOT NULL,
  arm VARCHAR(20) NOT NULL,
  case_id VARCHAR(200) NOT NULL,
  stage INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  model VARCHAR(200) NOT NULL,
  status VARCHAR(12) NOT NULL,
  reserved_microusd BIGINT NOT NULL,
  booked_microusd BIGINT,
  at VARCHAR(32) NOT NULL,
  PRIMARY KEY (idempotency_key)
);
CREATE TABLE meta (
  "key" VARCHAR(64) NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('state_version','1');
CREATE TABLE mixes (
  digest VARCHAR(80) NOT NULL,
  name VARCHAR(200) NOT NULL,
  manifest TEXT NOT NULL,
  added_at VARCHAR(32) NOT NULL,
  PRIMARY KEY (digest)
);
CREATE TABLE outbox (
  id INTEGER NOT NULL,
  dedup_key VARCHAR(200) NOT NULL,
  run_id VARCHAR(80),
  channel VARCHAR(40) NOT NULL,
  payload TEXT NOT NULL,
  status VARCHAR(12) NOT NULL,
  attempts INTEGER NOT NULL,
  last_error TEXT,
  created_at VARCHAR(32) NOT NULL,
  claimed_at VARCHAR(32),
  delivered_at VARCHAR(32),
  receipt TEXT,
  PRIMARY KEY (id),
  UNIQUE (dedup_key)
);
CREATE TABLE production (
  product VARCHAR(120) NOT NULL,
  mix_digest VARCHAR(80) NOT NULL,
  epoch INTEGER NOT NULL,
  applied_epoch INTEGER NOT NULL,
  changed_at VARCHAR(32) NOT NULL,
  PRIMARY KEY (product)
);
CREATE TABLE runs (
  run_id VARCHAR(80) NOT NULL,
  product VARCHAR(120) NOT NULL,
  status VARCHAR(20) NOT NULL,
  verdict VARCHAR(20),
  candidate_digest VARCHAR(80) NOT NULL,
  baseline_digest VARCHAR(80) NOT NULL,
  started_at VARCHAR(32) NOT NULL,
  ended_at VARCHAR(32),
  host VARCHAR(200) NOT NULL,
  pid INTEGER NOT NULL,
  result TEXT,
  PRIMARY KEY (run_id)
);
CREATE TABLE spend_totals (
  scope VARCHAR(120) NOT NULL,
  microusd BIGINT NOT NULL,
  PRIMARY KEY (scope)
);
CREATE TABLE transitions (
  id INTEGER NOT NULL,
  product VARCHAR(120) NOT NULL,
  epoch INTEGER NOT NULL,
  kind VARCHAR(20) NOT NULL,
  from_digest VARCHAR(80),
  to_digest VARCHAR(80) NOT NULL,
  actor VARCHAR(200) NOT NULL,
  reason TEXT NOT NULL,
  run_id VARCHAR(80),
  at VARCHAR(32) NOT NULL,
  PRIMARY KEY (id)
);
CREATE INDEX ix_transitions_product ON transitions (product);
CREATE INDEX ix_freezes_product ON freezes (product);
CREATE INDEX ix_runs_product ON runs (product);
CREATE INDEX ix_ledger_run_id ON ledger (run_id);
CREATE INDEX ix_ledger_day ON ledger (day);
COMMIT;
