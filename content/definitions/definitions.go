// Package definitions holds the definitions that every agent is built with.
// What the lines mean is told by package agent/scan, which reads them.
package definitions

import _ "embed"

// Base is the text of the embedded definitions.
//
//go:embed base.kdef
var Base []byte
