#!/usr/bin/env bash
# bench-logs.sh [LINES]: lines of an access log per second of processor time, for authvigil replay (file, parser, detector),
# grep -c and, where it is installed, mtail, on the same file in one run. Default 5000000 lines; each is run three times and
# the best counts, mtail once.
set -euo pipefail
lines=${1:-5000000}
here=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
(cd "$here" && CGO_ENABLED=0 go build -trimpath -o "$dir/authvigil" ./cmd/authvigil)

write() { # combined or json
  awk -v n="$lines" -v kind="$1" 'BEGIN {
    srand(1); t = 1767571200
    for (i = 0; i < n; i++) {
      if (i % 50 == 0) { t++; day = strftime("%d/%b/%Y:%H:%M:%S +0000", t, 1); iso = strftime("%Y-%m-%dT%H:%M:%S+00:00", t, 1) }
      c = int(-2000 * log(1 - rand())); status = rand() < 0.02 ? 401 : 200; id = int(rand() * 100000); size = int(rand() * 10000)
      if (kind == "json")
        printf "{\"time_iso8601\":\"%s\",\"remote_addr\":\"10.0.%d.%d\",\"remote_user\":\"user%d\",\"request\":\"GET /v2/devices/%d/state?verbose=1 HTTP/1.1\",\"status\":\"%d\",\"body_bytes_sent\":\"%d\",\"http_referer\":\"https://app.example.com/\",\"http_user_agent\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\",\"request_time\":\"0.012\",\"upstream_status\":\"%d\"}\n", iso, c / 256, c % 256, c, id, status, size, status
      else
        printf "10.0.%d.%d - user%d [%s] \"GET /v2/devices/%d/state?verbose=1 HTTP/1.1\" %d %d \"https://app.example.com/\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\"\n", c / 256, c % 256, c, day, id, status, size
    }
  }' >"$dir/$1.log"
}

TIMEFORMAT='%U %S'
measure() { # name, runs, command…
  local name=$1 runs=$2 best='' spent
  shift 2
  for _ in $(seq "$runs"); do
    spent=$({ time "$@" >"$dir/out" 2>"$dir/err"; } 2>&1 | awk '{print $1 + $2}')
    if [ -z "$best" ] || awk "BEGIN {exit !($spent < $best)}"; then best=$spent; fi
  done
  awk -v name="$name" -v n="$lines" -v s="$best" 'BEGIN {printf "%-28s %8.2f s  %12.0f lines/s\n", name, s, n / s}'
}

write combined
write json
ls -l "$dir"/*.log | awk '{printf "%s bytes of %s\n", $5, $9}' | sed "s,$dir/,,"
measure "authvigil combined" 3 "$dir/authvigil" replay --format combined --output json "$dir/combined.log"
measure "authvigil auto (combined)" 3 "$dir/authvigil" replay --output json "$dir/combined.log"
measure "authvigil json" 3 "$dir/authvigil" replay --format json --output json "$dir/json.log"
measure "grep -c ' 401 ' combined" 3 grep -c ' 401 ' "$dir/combined.log"
measure "grep -c '\"401\"' json" 3 grep -c '"status":"401"' "$dir/json.log"
if command -v mtail >/dev/null; then
  cat >"$dir/refused.mtail" <<'MTAIL'
counter refused by status
/^\S+ \S+ \S+ \[[^\]]+\] "\S+ \S+ \S+" (?P<status>\d{3}) / {
  refused[$status]++
}
MTAIL
  measure "mtail combined" 1 mtail --one_shot --progs "$dir/refused.mtail" --logs "$dir/combined.log" --logtostderr
  grep -q 401 "$dir/out" || { echo "mtail counted nothing" >&2; tail -3 "$dir/err" >&2; exit 1; }
fi
