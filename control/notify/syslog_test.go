package notify

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"komainu/finding"
	"komainu/internal/need"
)

func TestSyslogOverUDP(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := newBench(t)
	v := b.create(Wanted{Name: "log", Kind: Syslog, Target: Target{Host: "127.0.0.1", Port: c.LocalAddr().(*net.UDPAddr).Port, Protocol: "udp"}})
	m := alert(`A "quoted] title`+"\n<13>1 forged", finding.High)
	m.Devices[0].Name = `we"b]\1`
	b.tell(m)
	defer b.run()()
	line := make([]byte, 4096)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := c.ReadFrom(line)
	if err != nil {
		t.Fatal(err)
	}
	got := string(line[:n])
	if !strings.HasPrefix(got, "<107>1 ") || strings.Contains(got, "\n") {
		t.Errorf("line %q", got)
	}
	for _, want := range []string{" plane komainu ", " alert.created [komainu@32473 id=\"", `severity="High"`, `device="we\"b\]\\1"`, "] \ufeffNew alert (High): A \"quoted] title <13>1 forged on"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if v := b.until(v.ID, func(v Notification) bool { return v.LastDelivery != nil }); !v.LastDelivery.Ok || !strings.Contains(v.LastDelivery.Detail, "UDP") {
		t.Errorf("%+v", v.LastDelivery)
	}
}

func TestLongDatagramsAreCutBetweenCharacters(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := newBench(t)
	b.create(Wanted{Name: "log", Kind: Syslog, Target: Target{Host: "127.0.0.1", Port: c.LocalAddr().(*net.UDPAddr).Port, Protocol: "udp"}})
	b.tell(alert(strings.Repeat("狛犬", 1000), finding.High))
	defer b.run()()
	line := make([]byte, 9000)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, _, err := c.ReadFrom(line)
	if err != nil || n > maxDatagram || n < maxDatagram-4 || bytes.ContainsRune(line[:n], '\ufffd') {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// frames reads messages that are framed by their length.
func frames(t *testing.T, l net.Listener) chan string {
	got := make(chan string, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(c)
			if length, err := r.ReadString(' '); err == nil {
				n, err := strconv.Atoi(strings.TrimSpace(length))
				if err != nil {
					t.Errorf("length %q", length)
				}
				text := make([]byte, n)
				if _, err := io.ReadFull(r, text); err == nil {
					got <- string(text)
				}
				if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
					t.Errorf("and then %q, %v", rest, err)
				}
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return got
}

func TestSyslogOverTLS(t *testing.T) {
	ca := newAuthority(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{ca.leaf}})
	if err != nil {
		t.Fatal(err)
	}
	got := frames(t, l)
	b := newBench(t)
	target := Target{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, CA: ca.pem}
	v := b.create(Wanted{Name: "log", Kind: Syslog, Target: target})
	result, err := b.Test(b.ctx, &ByID{v.ID})
	if err != nil || !result.Ok || !strings.Contains(result.Detail, "to the end") {
		t.Fatalf("%+v, %v", result, err)
	}
	select {
	case line := <-got:
		if !strings.HasPrefix(line, "<110>1 ") || !strings.Contains(line, " test [") {
			t.Errorf("line %q", line)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing arrived")
	}
	target.CA = newAuthority(t).pem
	if v, err = b.Update(b.ctx, &UpdateInput{ID: v.ID, Body: Wanted{Name: "log", Kind: Syslog, Target: target}}); err != nil {
		t.Fatal(err)
	}
	if result, err := b.Test(b.ctx, &ByID{v.ID}); err != nil || result.Ok || !strings.Contains(result.Detail, "certificate") {
		t.Errorf("another CA: %+v, %v", result, err)
	}
}

// TestRsyslogReadsIt has a real receiver write down what it understood.
func TestRsyslogReadsIt(t *testing.T) {
	need.Root(t)
	need.Program(t, "rsyslogd")
	dir := t.TempDir()
	port := func() int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port
	}
	tcp, udp := port(), port()
	out := filepath.Join(dir, "out.log")
	config := filepath.Join(dir, "rsyslog.conf")
	text := fmt.Sprintf(`global(workDirectory=%q maxMessageSize="8k")
module(load="imtcp")
module(load="imudp")
module(load="mmpstrucdata")
input(type="imtcp" port="%d" address="127.0.0.1")
input(type="imudp" port="%d" address="127.0.0.1")
template(name="seen" type="string" string="%%syslogpriority-text%%|%%syslogfacility%%|%%hostname%%|%%app-name%%|%%msgid%%|%%$!rfc5424-sd!komainu@32473!device%%|%%$!rfc5424-sd!komainu@32473!severity%%|%%msg%%\n")
action(type="mmpstrucdata")
action(type="omfile" file=%q template="seen" flushOnTXEnd="on")
`, dir, tcp, udp, out)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := exec.CommandContext(t.Context(), "rsyslogd", "-n", "-f", config, "-i", filepath.Join(dir, "pid"))
	var said bytes.Buffer
	daemon.Stdout, daemon.Stderr = &said, &said
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	b := newBench(t)
	deadline := time.Now().Add(20 * time.Second)
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tcp))
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("rsyslogd does not listen: %v; %s", err, &said)
		}
		<-time.After(20 * time.Millisecond)
	}
	b.create(Wanted{Name: "tcp", Kind: Syslog, Target: Target{Host: "127.0.0.1", Port: tcp, Protocol: "tcp"}})
	b.create(Wanted{Name: "udp", Kind: Syslog, Target: Target{Host: "127.0.0.1", Port: udp, Protocol: "udp"}})
	m := alert("Reverse shell 狛犬", finding.High)
	m.Devices[0].Name = `web"1]`
	b.tell(m)
	defer b.run()()
	want := `err|13|plane|komainu|alert.created|web"1]|High|`
	for {
		seen, err := os.ReadFile(out)
		if err == nil && strings.Count(string(seen), "Reverse shell 狛犬") == 2 {
			if strings.Count(string(seen), want) != 2 {
				t.Errorf("it understood %s", seen)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it wrote %q, %v; said %s; log %s", seen, err, &said, b.log)
		}
		<-time.After(20 * time.Millisecond)
	}
}
