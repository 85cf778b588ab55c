package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"komainu/agent/link"
	"komainu/control/enrol"
	"komainu/policy"
	"komainu/wire"
)

// fleetDir tells the test binary to be the agents of BenchmarkIdleAgents, so
// that they are not measured with the gateway.
const fleetDir = "KOMAINU_GATEWAY_TEST_FLEET"

func TestMain(m *testing.M) {
	if dir := os.Getenv(fleetDir); dir != "" {
		if err := runFleet(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// runFleet enrols as many agents as standard input says and keeps them
// connected until it ends.
func runFleet(dir string) error {
	var order struct {
		Token  string
		Agents int
	}
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&order); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for i := range order.Agents {
		dir := filepath.Join(dir, strconv.Itoa(i))
		if _, err := link.Enrol(ctx, link.EnrolOptions{Dir: dir, Token: order.Token, Facts: facts}); err != nil {
			return err
		}
		l := link.New(link.Config{
			Dir: dir, Facts: func() wire.Facts { return facts }, PolicyVersion: func() uint64 { return 0 },
			ApplyPolicy: func(policy.Signed) (uint64, error) { return 1, nil }, Health: func() []byte { return []byte("{}") },
			Counts: func() (uint64, uint64) { return 0, 0 }, Log: slog.New(slog.DiscardHandler),
		})
		running.Go(func() { _ = l.Run(ctx) }) // ends with ctx
	}
	_, err := io.Copy(io.Discard, io.MultiReader(in.Buffered(), os.Stdin))
	return err
}

// BenchmarkIdleAgents measures what a connected agent that says nothing costs
// the gateway, TLS included.
func BenchmarkIdleAgents(b *testing.B) {
	const agents = 1000
	p := newPlaneWith(b, 90*time.Second)
	_, token := p.token(func(r *enrol.TokenRequest) { r.MaxUses = agents })
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	child := exec.Command(exe)
	child.Env = append(os.Environ(), fleetDir+"="+b.TempDir())
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	before := memory()
	if err := child.Start(); err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	if err := json.NewEncoder(in).Encode(map[string]any{"Token": token, "Agents": agents}); err != nil {
		b.Fatal(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for p.gateway.Stats().Sessions < agents {
		if time.Since(start) > time.Minute {
			b.Fatalf("%d of %d agents", p.gateway.Stats().Sessions, agents)
		}
		<-tick.C
	}
	for b.Loop() {
	}
	b.ReportMetric(float64(memory()-before)/1024/agents, "kB/agent")
	b.ReportMetric(time.Since(start).Seconds()*1000/agents, "ms/enrolment")
	in.Close()
	if err := child.Wait(); err != nil {
		b.Error(err)
	}
}

// memory is what the process uses after a collection.
func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
