package connector

import (
	"context"
	"encoding/json"
	"fmt"
)

// Pushed reports whether nobody but a person reaches the machines of a
// connector, with komainuctl deploy, and what that may call the connector: its
// name where it is the only one of that name, else its id.
//
// It is asked about every machine again and again, so what connectors are is
// read once, and anew when one of them has changed.
func (c *Connectors) Pushed(ctx context.Context, id string) (call string, pushed bool, err error) {
	c.pushing.Lock()
	defer c.pushing.Unlock()
	if c.pushes == nil {
		if c.pushes, err = c.readPushes(ctx); err != nil {
			return "", false, fmt.Errorf("read the connectors: %w", err)
		}
	}
	call, pushed = c.pushes[id]
	return call, pushed, nil
}

// readPushes returns what the connectors that push are called, by id.
func (c *Connectors) readPushes(ctx context.Context) (map[string]string, error) {
	var rows []row
	if err := c.cfg.DB.NewSelect().Model(&rows).Column("id", "organization_id", "kind", "name", "settings").Scan(ctx); err != nil {
		return nil, err
	}
	named := map[[2]string]int{}
	for _, r := range rows {
		named[[2]string{r.OrganizationID, r.Name}]++
	}
	pushes := map[string]string{}
	for _, r := range rows {
		var s struct{ Credential string }
		if r.Kind != KindSSH || json.Unmarshal(r.Settings, &s) != nil || s.Credential != Push {
			continue
		}
		pushes[r.ID] = r.Name
		if named[[2]string{r.OrganizationID, r.Name}] > 1 {
			pushes[r.ID] = r.ID
		}
	}
	return pushes, nil
}

// repush has Pushed read the connectors anew.
func (c *Connectors) repush() {
	c.pushing.Lock()
	c.pushes = nil
	c.pushing.Unlock()
}
