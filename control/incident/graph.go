package incident

import (
	"cmp"
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"komainu/control/rest"
	"komainu/event"
	"komainu/finding"
)

// Bounds of a graph.
const (
	maxNodes = 200
	maxEdges = 600
)

// Node is an entity of an incident.
type Node struct {
	ID       string            `json:"id"`
	Kind     string            `json:"kind" enum:"device,process,file,user,address,alert"`
	Label    string            `json:"label"`
	Severity string            `json:"severity,omitempty"`
	Href     string            `json:"href,omitempty" doc:"path of its page in the portal"`
	Fields   map[string]string `json:"fields"`
}

// Edge is how two entities relate.
type Edge struct {
	From  string    `json:"from"`
	To    string    `json:"to"`
	Label string    `json:"label"`
	Time  time.Time `json:"time,omitzero"`
	Alert string    `json:"alert,omitempty" doc:"id of the alert that tells of it"`
}

// Graph is the story of an incident: its entities and how they relate.
type Graph struct {
	Nodes   []Node `json:"nodes"`
	Edges   []Edge `json:"edges"`
	LeftOut int    `json:"leftOut" doc:"entities beyond the limit of 200"`
}

// Told is an alert with the finding that tells most of it.
type Told struct {
	Alert   Alert
	Finding finding.Finding
}

// GraphOf builds the graph of alerts. What says most comes first and stays
// when there is more than fits: devices and alerts, what the alerts are about,
// the processes that acted and those above them, and then what is in events.
func GraphOf(alerts []Told) Graph {
	b := &builder{graph: Graph{Nodes: []Node{}, Edges: []Edge{}}, have: map[string]bool{}, left: map[string]bool{}, edges: map[string]bool{}}
	for _, t := range alerts {
		b.node(device(t.Alert.Device))
		b.node(Node{ID: alertID(t.Alert.ID), Kind: "alert", Label: t.Alert.Title, Severity: t.Alert.Severity.String(), Href: "/alerts/" + t.Alert.ID})
	}
	for i := range alerts {
		b.evidence(&alerts[i])
	}
	for i := range alerts {
		b.tree(&alerts[i])
	}
	for i := range alerts {
		b.events(&alerts[i])
	}
	b.graph.LeftOut = len(b.left)
	return b.graph
}

type builder struct {
	graph      Graph
	have, left map[string]bool
	edges      map[string]bool
}

// node adds a node once, and reports whether the graph has it.
func (b *builder) node(n Node) bool {
	if b.have[n.ID] {
		return true
	}
	if len(b.graph.Nodes) >= maxNodes {
		b.left[n.ID] = true
		return false
	}
	if n.Fields == nil {
		n.Fields = map[string]string{}
	}
	for name, value := range n.Fields {
		if value == "" {
			delete(n.Fields, name)
		}
	}
	b.have[n.ID] = true
	b.graph.Nodes = append(b.graph.Nodes, n)
	return true
}

// edge adds an edge between two nodes of the graph, once for each label.
func (b *builder) edge(from, to, label string, at time.Time, alert string) {
	key := from + "\x00" + to + "\x00" + label
	if from == to || !b.have[from] || !b.have[to] || b.edges[key] || len(b.graph.Edges) >= maxEdges {
		return
	}
	b.edges[key] = true
	b.graph.Edges = append(b.graph.Edges, Edge{from, to, label, at.UTC(), alert})
}

func device(r rest.Ref) Node {
	return Node{ID: "device:" + r.ID, Kind: "device", Label: cmp.Or(r.Name, r.ID), Href: "/devices/" + r.ID}
}

func alertID(id string) string { return "alert:" + id }

func process(d event.DeviceID, p *event.Process) Node {
	n := Node{ID: processID(d, p.Key), Kind: "process", Label: cmp.Or(p.Name, path.Base(p.Path), fmt.Sprint(p.Key.PID)), Fields: map[string]string{
		"pid": fmt.Sprint(p.Key.PID), "path": p.Path, "commandLine": cut(strings.Join(p.Args, " ")), "user": user(&p.User),
	}}
	if p.Image != nil {
		n.Fields["sha256"] = p.Image.Hashes.SHA256
	}
	return n
}

func processID(d event.DeviceID, k event.ProcessKey) string {
	return "process:" + string(d) + "/" + stable(k)
}

func file(d event.DeviceID, f *event.File) Node {
	return Node{ID: "file:" + string(d) + ":" + f.Path, Kind: "file", Label: path.Base(f.Path), Fields: map[string]string{
		"path": f.Path, "sha256": f.Hashes.SHA256, "sensitive": string(f.Sensitive), "originUrl": f.OriginURL,
	}}
}

func account(d event.DeviceID, u *event.User) Node {
	return Node{ID: "user:" + string(d) + ":" + user(u), Kind: "user", Label: user(u), Fields: map[string]string{"uid": fmt.Sprint(u.EUID)}}
}

func user(u *event.User) string { return cmp.Or(u.Name, fmt.Sprint(u.EUID)) }

// address is the other end of a connection; it is the same one whichever
// device sees it.
func address(n *event.Network) (Node, bool) {
	if !n.RemoteIP.IsValid() || n.RemoteIP.IsUnspecified() {
		return Node{}, false
	}
	label, port := n.RemoteIP.String(), ""
	if n.RemotePort != 0 {
		port = strconv.Itoa(int(n.RemotePort))
		label = net.JoinHostPort(label, port)
	}
	return Node{ID: "address:" + label, Kind: "address", Label: label, Fields: map[string]string{"remoteIp": n.RemoteIP.String(), "remotePort": port, "url": n.URL}}, true
}

// cut bounds what a person wrote for a machine.
func cut(s string) string {
	if len(s) <= maxField {
		return s
	}
	return strings.ToValidUTF8(s[:maxField], "") + "…"
}

const maxField = 1000 // bytes

func (b *builder) evidence(t *Told) {
	d, id := t.Finding.Device, t.Alert.ID
	// The process that acted raises the alert; without one its entities do.
	if len(t.Finding.Tree) > 0 && b.node(process(d, &t.Finding.Tree[0])) {
		b.edge(processID(d, t.Finding.Tree[0].Key), alertID(id), "raised", t.Alert.FirstActivity, id)
	} else {
		b.edge("device:"+t.Alert.Device.ID, alertID(id), "raised", t.Alert.FirstActivity, id)
	}
	for i := range t.Finding.Evidence {
		e := &t.Finding.Evidence[i]
		n, ok := Node{}, true
		switch {
		case e.File != nil:
			n = file(d, e.File)
		case e.Process != nil && !e.Process.Key.IsZero():
			n = process(d, e.Process)
		case e.User != nil:
			n = account(d, e.User)
		case e.Network != nil:
			n, ok = address(e.Network)
		default:
			ok = false
		}
		if !ok {
			continue
		}
		if n.Fields == nil {
			n.Fields = map[string]string{}
		}
		n.Fields["verdict"], n.Fields["state"] = e.Verdict, e.State
		if b.node(n) {
			b.edge(alertID(id), n.ID, "involves", t.Alert.FirstActivity, id)
		}
	}
}

func (b *builder) tree(t *Told) {
	d, id := t.Finding.Device, t.Alert.ID
	for i := range t.Finding.Tree {
		if p := &t.Finding.Tree[i]; !p.Key.IsZero() {
			b.node(process(d, p))
		}
	}
	for i := range t.Finding.Tree {
		p := &t.Finding.Tree[i]
		switch parent := processID(d, p.Parent); {
		case p.Key.IsZero():
		case !p.Parent.IsZero() && b.have[parent]:
			b.edge(parent, processID(d, p.Key), "started", p.Started, id)
		default:
			b.edge("device:"+t.Alert.Device.ID, processID(d, p.Key), "runs", p.Started, id)
		}
		if i == 0 && b.node(account(d, &p.User)) {
			b.edge(processID(d, p.Key), account(d, &p.User).ID, "ran as", p.Started, id)
		}
	}
}

// relations says how an action relates who did it to what it was done to.
var relations = map[event.Action]string{
	event.SensitiveFileRead: "read", event.FileCreated: "wrote", event.FileModified: "wrote", event.FileRenamed: "wrote", event.FileDeleted: "deleted",
	event.ConnectionSuccess: "connected to", event.ConnectionFailed: "connected to", event.InboundConnectionAccepted: "connected to",
	event.ProcessCreated: "started", event.AntivirusDetection: "opened",
}

func (b *builder) events(t *Told) {
	d, id := t.Finding.Device, t.Alert.ID
	for i := range t.Finding.Events {
		e := &t.Finding.Events[i]
		from := ""
		if e.Initiator != nil && !e.Initiator.Key.IsZero() {
			if n := process(d, e.Initiator); b.node(n) {
				from = n.ID
			}
		}
		label := cmp.Or(relations[e.Action], "involves")
		if e.Process != nil && !e.Process.Key.IsZero() {
			if n := process(d, e.Process); b.node(n) {
				b.edge(from, n.ID, label, e.Time, id)
			}
		}
		if e.File != nil && e.File.Path != "" {
			if n := file(d, e.File); b.node(n) {
				b.edge(from, n.ID, label, e.Time, id)
			}
		}
		if e.Network != nil {
			if n, ok := address(e.Network); ok && b.node(n) {
				b.edge(from, n.ID, label, e.Time, id)
			}
		}
	}
}

// Matched names what a rule has found, field by field.
func Matched(f *finding.Finding) map[string]string {
	m := map[string]string{}
	put := func(name, value string) {
		if value != "" && m[name] == "" {
			m[name] = cut(value)
		}
	}
	if t := f.Threat; t != nil {
		put("name", t.Name)
		put("type", t.Type)
		put("definitions", t.Definitions)
		put("inside", t.Inside)
		put("reason", t.Reason)
	}
	var kinds []string
	for _, e := range f.Evidence {
		if e.File != nil {
			if f.Source == finding.SourceAntivirus {
				put("path", e.File.Path)
				put("sha256", e.File.Hashes.SHA256)
			}
			if s := string(e.File.Sensitive); s != "" && !slices.Contains(kinds, s) {
				kinds = append(kinds, s)
			}
		}
		if e.Network != nil && e.Network.RemoteIP.IsValid() {
			put("remoteIp", e.Network.RemoteIP.String())
			put("remotePort", strconv.Itoa(int(e.Network.RemotePort)))
		}
	}
	slices.Sort(kinds)
	put("sensitive", strings.Join(kinds, ", "))
	if f.Source == finding.SourceBehavior {
		// The event that completed the match is the last one.
		if n := len(f.Events); n > 0 {
			last := &f.Events[n-1]
			put("actionType", string(last.Action))
			if last.Network != nil && last.Network.RemoteIP.IsValid() {
				put("remoteIp", last.Network.RemoteIP.String())
				put("remotePort", strconv.Itoa(int(last.Network.RemotePort)))
			}
		}
		if len(f.Tree) > 0 {
			put("path", f.Tree[0].Path)
			put("commandLine", strings.Join(f.Tree[0].Args, " "))
			put("user", user(&f.Tree[0].User))
		}
	}
	return m
}
