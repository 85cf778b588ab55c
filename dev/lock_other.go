//go:build !unix

package main

import "komainu/fault"

type lock struct{}

func takeLock(string) (*lock, error) {
	return nil, fault.New(fault.Unsupported, "up runs on Linux")
}

func lockHolder(string) int    { return 0 }
func held(string) bool         { return false }
func (l *lock) Release() error { return nil }
