#!/bin/sh
# Rebuilds wirepb from wire.proto: protoc is Debian 12's, the Go plugin is the
# one of the protobuf module in go.mod.
set -eu
plugin=$(mktemp -d)
trap 'rm -r "$plugin"' EXIT
go build -o "$plugin/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
mkdir -p wirepb
PATH="$plugin:$PATH" protoc --go_out=wirepb --go_opt=module=komainu/wire/wirepb wire.proto
