#!/bin/sh
# Run once by the PostgreSQL image on an empty volume: a database and a user of its own for Prefect
# and for imagegate's state. Passwords come by the environment and stand in no file and no log.
set -eu
psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --dbname "${POSTGRES_DB:-postgres}" \
  --username "${POSTGRES_USER:-postgres}" <<'SQL'
\getenv prefect_password PREFECT_DB_PASSWORD
\getenv state_password IMAGEGATE_DB_PASSWORD
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE ROLE imagegate LOGIN PASSWORD :'state_password';
CREATE DATABASE prefect OWNER prefect;
CREATE DATABASE imagegate OWNER imagegate;
REVOKE ALL ON DATABASE prefect, imagegate FROM PUBLIC;
SQL
