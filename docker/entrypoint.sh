#!/bin/sh
# anypool, with HOST and PORT as platforms for containers call them.
export ANYPOOL_HOST="${ANYPOOL_HOST:-$HOST}" ANYPOOL_PORT="${ANYPOOL_PORT:-$PORT}"
exec anypool "$@"
