package sensor

import (
	"komainu/agent/sensor/sensitive"
	"komainu/event"
)

// Classify returns the class of secret that a file holds by its absolute path,
// NotSensitive if it holds none. Of a file whose content alone tells, it is
// the class that it may have.
func Classify(path string) event.Sensitivity {
	class, _ := sensitive.Classify(path)
	return class
}

// SecretFolder reports whether a path is a folder that holds secrets alone.
func SecretFolder(path string) bool { return sensitive.IsFolder(path) }
