#!/bin/bash
# A PostgreSQL server of your own in ./postgres, without root: ./postgres.sh start | url | stop
set -euo pipefail
cd "$(dirname "$0")"
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1 || true)
export PATH=${bin:+$bin:}$PATH
case ${1:-} in
start)
  # The server listens at a socket in a folder that only you can enter, and not on the network: jobs on other nodes
  # would need listen_addresses, a password and TLS instead (docs/stores.md).
  initdb --auth=peer --no-sync --pgdata=postgres >postgres.log
  mkdir -m 700 postgres/socket
  pg_ctl --pgdata=postgres --log=postgres.log --wait \
    -o "-c listen_addresses='' -c unix_socket_directories='$PWD/postgres/socket'" start >/dev/null
  createdb --host="$PWD/postgres/socket" hpotune
  ;;
url) printf 'postgresql://%s@/hpotune?host=%s\n' "$(id -un)" "$PWD/postgres/socket" ;;
stop) pg_ctl --pgdata=postgres --mode=fast stop >/dev/null ;;
*) echo "postgres.sh start | url | stop" >&2; exit 2 ;;
esac
