//go:build !linux

package main

import "komainu/fault"

func mountDemo(string) (bool, error) {
	return false, fault.New(fault.Unsupported, "the control plane and the agent's protection run on Linux; use a Linux machine")
}

func unmountDemo(string) error { return nil }
