package rules_test

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"komainu/agent/proctree"
	"komainu/agent/rules"
	"komainu/agent/sensor"
	content "komainu/content/rules"
	"komainu/event"
	"komainu/finding"
)

// sample is a case of content/rules/samples; README.md there describes it.
type sample struct {
	Name  string               `yaml:"name"`
	Find  int                  `yaml:"find"`
	Files map[string]ownedFile `yaml:"files"`
	Steps []step               `yaml:"steps"`
}

type ownedFile struct {
	Owner uint32 `yaml:"owner"`
	Mode  uint32 `yaml:"mode"`
}

type step struct {
	At   *int      `yaml:"at"` // seconds
	Exec *execStep `yaml:"exec"`
	Exit event.PID `yaml:"exit"`
	Open *openStep `yaml:"open"`
}

type execStep struct {
	PID    event.PID `yaml:"pid"`
	Parent event.PID `yaml:"parent"`
	Path   string    `yaml:"path"`
	Args   []string  `yaml:"args"`
	Cwd    string    `yaml:"cwd"`
	UID    uint32    `yaml:"uid"`
	Owner  uint32    `yaml:"owner"`
	Mode   uint32    `yaml:"mode"`
	Stdin  string    `yaml:"stdin"`
	Stdout string    `yaml:"stdout"`
}

type openStep struct {
	PID  event.PID `yaml:"pid"`
	Path string    `yaml:"path"`
}

var epoch = time.Unix(1_000_000, 0).UTC()

// play runs a case through the real tree and engine.
func play(t *testing.T, s sample) []finding.Finding {
	t.Helper()
	tree := proctree.New(proctree.Limits{})
	engine, err := rules.New(rules.Config{
		Tree: tree, Classify: sensor.Classify, SecretFolder: sensor.SecretFolder,
		Inspect: func(name string) (event.File, error) {
			f, ok := s.Files[name]
			if !ok {
				return event.File{}, fs.ErrNotExist
			}
			return event.File{Path: name, Mode: f.Mode, Owner: event.User{UID: f.Owner}}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	keys := map[event.PID]event.ProcessKey{1: {Boot: "b", PID: 1, Start: 1}}
	tree.Seed([]event.Process{{Key: keys[1], Path: "/usr/lib/systemd/systemd", Started: epoch}})
	var found []finding.Finding
	tell := func(ev *event.Event) {
		tree.Apply(ev)
		found = append(found, engine.Observe(ev)...)
	}
	at := 0
	for _, st := range s.Steps {
		at++
		if st.At != nil {
			at = *st.At
		}
		now := epoch.Add(time.Duration(at) * time.Second)
		switch {
		case st.Exec != nil:
			x := st.Exec
			parent := keys[max(x.Parent, 1)]
			key, known := keys[x.PID]
			if !known {
				key = event.ProcessKey{Boot: "b", PID: x.PID, Start: uint64(now.Sub(epoch)) + 2}
				keys[x.PID] = key
				tell(&event.Event{Time: now, Action: event.ProcessCreated, Process: &event.Process{Key: key, Parent: parent, Started: now}, Fields: map[string]string{"via": "fork"}})
			}
			mode := x.Mode
			if mode == 0 {
				mode = 0o755
			}
			fields := map[string]string{}
			for k, v := range map[string]string{"stdin": x.Stdin, "stdout": x.Stdout} {
				if v != "" {
					fields[k] = v
				}
			}
			tell(&event.Event{Time: now, Action: event.ProcessCreated, Fields: fields, Process: &event.Process{
				Key: key, Parent: parent, Started: now, Path: x.Path, Name: path.Base(x.Path), Args: x.Args, Cwd: x.Cwd,
				User: event.User{UID: x.UID, EUID: x.UID}, Image: &event.File{Path: x.Path, Mode: mode, Owner: event.User{UID: x.Owner}},
			}})
		case st.Exit != 0:
			tell(&event.Event{Time: now, Action: event.ProcessTerminated, Process: &event.Process{Key: keys[st.Exit], ExitCode: new(int32(0))}})
		case st.Open != nil:
			class := sensor.Classify(st.Open.Path)
			if class == event.NotSensitive {
				t.Fatalf("%s is not sensitive", st.Open.Path)
			}
			tell(&event.Event{Time: now, Action: event.SensitiveFileRead, Initiator: &event.Process{Key: keys[st.Open.PID]}, File: &event.File{Path: st.Open.Path, Sensitive: class}})
		default:
			t.Fatalf("step %+v says nothing", st)
		}
	}
	return found
}

func samples(t *testing.T, id string) []sample {
	t.Helper()
	f, err := os.Open(filepath.Join("../../content/rules/samples", id+".yaml"))
	if err != nil {
		t.Fatalf("every rule has samples: %v", err)
	}
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	var all []sample
	if err := d.Decode(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSamples(t *testing.T) {
	metas, err := content.All()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rules.New(rules.Config{}); err != nil {
		t.Fatal(err)
	}
	for _, id := range slices.Sorted(maps.Keys(metas)) {
		positive, negative := 0, 0
		for _, s := range samples(t, id) {
			if s.Find > 0 {
				positive++
			} else {
				negative++
			}
			t.Run(id+"/"+strings.ReplaceAll(s.Name, " ", "_"), func(t *testing.T) {
				found := play(t, s)
				n := 0
				for _, f := range found {
					if f.Rule.ID != id {
						t.Errorf("%s found %q", f.Rule.ID, f.Summary)
						continue
					}
					n++
					complete(t, f, metas[id])
				}
				if n != s.Find {
					t.Errorf("%d findings, want %d", n, s.Find)
				}
			})
		}
		if positive == 0 || negative == 0 {
			t.Errorf("rule %s has %d cases that it finds and %d that it leaves alone; it needs both", id, positive, negative)
		}
	}
}

// complete checks that a finding says all that people need.
func complete(t *testing.T, f finding.Finding, meta content.Meta) {
	t.Helper()
	if f.Title != meta.Title || f.Severity.String() != meta.Severity || string(f.Category) != meta.Category || len(f.Techniques) == 0 {
		t.Errorf("%+v does not say what its description says", f)
	}
	if f.ID == "" || f.Summary == "" || f.Source != finding.SourceBehavior || f.State != finding.Detected || f.Time.IsZero() {
		t.Errorf("incomplete: %+v", f)
	}
	if len(f.Tree) == 0 || f.Tree[0].Path == "" || len(f.Events) == 0 || len(f.Evidence) == 0 || f.Evidence[0].Process == nil {
		t.Errorf("without evidence: %+v", f)
	}
	for _, e := range f.Evidence {
		set := 0
		for _, is := range []bool{e.File != nil, e.Process != nil, e.User != nil, e.Network != nil} {
			if is {
				set++
			}
		}
		if set != 1 {
			t.Errorf("evidence of %d things: %+v", set, e)
		}
	}
}

func TestDescriptionsAreComplete(t *testing.T) {
	metas, err := content.All()
	if err != nil {
		t.Fatal(err)
	}
	titles := map[string]string{}
	for id, m := range metas {
		if m.Title == "" || m.Description == "" || len(m.FalsePositives) == 0 || len(m.Recommended) == 0 {
			t.Errorf("%s: %+v", id, m)
		}
		if other, ok := titles[m.Title]; ok {
			t.Errorf("%s and %s have the same title", id, other)
		}
		titles[m.Title] = id
	}
}

// TestStateIsBounded lets many sessions open secrets without end.
func TestStateIsBounded(t *testing.T) {
	tree := proctree.New(proctree.Limits{Processes: 64})
	engine, err := rules.New(rules.Config{Tree: tree, Classify: sensor.Classify, SecretFolder: sensor.SecretFolder})
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"/a/.ssh/id_rsa", "/a/.aws/credentials", "/a/.pgpass"} // one kind too few
	found := 0
	for i := range 30_000 {
		k := event.ProcessKey{Boot: "b", PID: event.PID(i%5000 + 2), Start: uint64(i%5000 + 2)}
		file := files[i/5000%len(files)]
		ev := &event.Event{Time: epoch.Add(time.Duration(i) * time.Millisecond), Action: event.SensitiveFileRead,
			Initiator: &event.Process{Key: k, Path: "/x", Args: []string{"x"}}, File: &event.File{Path: file, Sensitive: sensor.Classify(file)}}
		found += len(engine.Observe(ev))
	}
	if found != 0 {
		t.Errorf("%d findings", found)
	}
	if n := engine.Sessions(); n > 1024 {
		t.Errorf("%d sessions are kept", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	tree := proctree.New(proctree.Limits{})
	engine, err := rules.New(rules.Config{Tree: tree, Classify: sensor.Classify, SecretFolder: sensor.SecretFolder})
	if err != nil {
		b.Fatal(err)
	}
	ev := &event.Event{Time: epoch, Action: event.ProcessCreated, Process: &event.Process{
		Key: event.ProcessKey{Boot: "b", PID: 5, Start: 5}, Path: "/usr/bin/cc1", Args: []string{"cc1", "-quiet", "-I", "/usr/include", "x.c", "-o", "x.s"}, Cwd: "/src",
	}}
	b.ReportAllocs()
	for b.Loop() {
		engine.Observe(ev)
	}
}
