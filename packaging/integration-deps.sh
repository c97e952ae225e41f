#!/bin/sh
# integration-deps.sh DIR TREE: installs by name what the integration tests need; oidc-provider goes into DIR, a Debian that
# systemd-nspawn boots into TREE.
set -eu
dir=$1
tree=$2
here=$(cd "$(dirname "$0")/.." && pwd)
missing=
for pair in prometheus:prometheus promtool:prometheus systemd-analyze:systemd prometheus-alertmanager:prometheus-alertmanager \
  chronyd:chrony nginx:nginx apache2:apache2 htpasswd:apache2-utils haproxy:haproxy openssl:openssl curl:curl node:nodejs npm:npm \
  systemd-nspawn:systemd-container mmdebstrap:mmdebstrap lintian:lintian rpm:rpm rpmlint:rpmlint man:man-db zsh:zsh fish:fish \
  exim4:exim4-daemon-light dovecot:dovecot-core slapd:slapd mariadbd:mariadb-server-core prosody:prosody vsftpd:vsftpd; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%:*}" ] || missing="$missing ${pair##*:}"
done
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing="$missing faketime"
[ -e /usr/lib/apache2/modules/mod_auth_openidc.so ] || missing="$missing libapache2-mod-auth-openidc"
[ -e /usr/lib/dovecot/imap ] && [ -e /usr/lib/dovecot/pop3 ] || missing="$missing dovecot-imapd dovecot-pop3d"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
if [ -n "$missing" ]; then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -q
  if [ ! -e /usr/sbin/policy-rc.d ]; then # what is installed is started by tests, and by nothing else
    printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
    $sudo chmod 755 /usr/sbin/policy-rc.d
    trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  # shellcheck disable=SC2086
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends $missing
fi
mkdir -p "$dir"
if ! cmp -s "$here/cmd/authvigil/integration/testdata/package.json" "$dir/package.json" || [ ! -d "$dir/node_modules/oidc-provider" ]; then
  cp "$here/cmd/authvigil/integration/testdata/package.json" "$dir/package.json"
  (cd "$dir" && npm install --no-audit --no-fund --loglevel=error)
fi
if [ ! -x "$tree/lib/systemd/systemd" ]; then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo rm -rf "$tree.new" && mkdir -p "$(dirname "$tree")"
  $sudo mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,libnss-systemd,ca-certificates,iproute2,procps bookworm "$tree.new"
  $sudo mv "$tree.new" "$tree"
fi
