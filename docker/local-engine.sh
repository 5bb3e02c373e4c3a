#!/usr/bin/env bash
# A Docker engine of its own, on Debian and as root, where there is none.
#
#   docker/local-engine.sh COMMAND…     start it, run COMMAND, end it and delete what it held
#
# It touches neither the network's set-up nor another engine: containers share the host's network.
# Where PYTHON_IMAGE cannot be pulled, a stand-in is made of Debian's own packages. Proxies with a
# certificate of their own work: the host's certificates and pip's index are given as secrets.
# Exit code 69: no engine can run here. KEEP=1 leaves images and base for the next time, in LOCAL_ENGINE.
set -euo pipefail

PYTHON_IMAGE=${PYTHON_IMAGE:-python:3.11-slim-bookworm}
home=${LOCAL_ENGINE:-/var/tmp/anypool-engine}
pidfile=$home/dockerd.pid
export DOCKER_HOST=unix://$home/docker.sock
export DOCKER=/usr/bin/docker # Debian's: another one in PATH may lack BuildKit

say() { printf 'local-engine [%ds]: %s\n' "$SECONDS" "$*" >&2; }

apt_install() {
  say "apt-get install $*"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$home/apt.log" 2>&1
}

start() {
  [ -x /usr/sbin/dockerd ] || apt_install docker.io
  /usr/sbin/dockerd --host "$DOCKER_HOST" --pidfile "$pidfile" \
    --data-root "$home/data" --exec-root "$home/exec" \
    --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
    >"$home/dockerd.log" 2>&1 </dev/null &
  for _ in $(seq 120); do
    if "$DOCKER" info >/dev/null 2>&1; then return; fi
    sleep 0.5
  done
  tail "$home/dockerd.log" >&2
  return 1
}

stop() {
  if [ -s "$pidfile" ]; then
    local containers pid
    containers=$("$DOCKER" ps --all --quiet) || containers=""
    # shellcheck disable=SC2086  # one word for each container
    [ -z "$containers" ] || "$DOCKER" rm --force $containers >/dev/null
    pid=$(cat "$pidfile")
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
  fi
  for mount in "$home"/exec/netns/*; do
    [ ! -e "$mount" ] || umount "$mount" 2>/dev/null || true
  done
  [ "${KEEP:-0}" = 1 ] || rm -rf "$home"
  say "stopped"
}

base() {
  if "$DOCKER" pull --quiet "$PYTHON_IMAGE" >/dev/null 2>&1; then return; fi
  local image=$PYTHON_IMAGE
  PYTHON_IMAGE=anypool-stand-in:latest
  if "$DOCKER" image inspect "$PYTHON_IMAGE" >/dev/null 2>&1; then return; fi
  command -v mmdebstrap >/dev/null || apt_install mmdebstrap
  say "$image cannot be pulled: making a stand-in of Debian's packages"
  # shellcheck disable=SC2016  # the hook expands $1
  TMPDIR=$([ -w /dev/shm ] && echo /dev/shm || echo /tmp) mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
    --dpkgopt=force-unsafe-io --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"' \
    bookworm - 2>"$home/base.log" |
    "$DOCKER" import --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin' - "$PYTHON_IMAGE" >/dev/null ||
    { tail "$home/base.log" >&2; return 1; }
}

secrets() {
  local inside=/etc/ssl/certs/ca-certificates.crt index
  index=${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}
  printf '[global]\ncert = %s\n%s\n' "$inside" "${index:+index-url = $index}" >"$home/pip.conf"
  printf -- '--secret id=pip_conf,src=%s --secret id=ca_bundle,src=%s' \
    "$home/pip.conf" "${PIP_CERT:-${SSL_CERT_FILE:-$inside}}"
}

[ $# -gt 0 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$home"
trap stop EXIT
trap 'exit 130' INT TERM
start || exit 69
base || exit 69
export PYTHON_IMAGE DOCKER_NETWORK=host
DOCKER_BUILD="${DOCKER_BUILD:-} --network host $(secrets)"
export DOCKER_BUILD
say "ready"
"$@"
