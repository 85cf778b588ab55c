package rules

// Sessions returns how many sessions the enumeration rule remembers.
func (e *Engine) Sessions() int {
	for _, r := range e.rules {
		if r, ok := r.rule.(*enumeration); ok {
			return len(r.sessions)
		}
	}
	return -1
}
