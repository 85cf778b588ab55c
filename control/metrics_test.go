package control_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// scrape reads /metrics as Prometheus does, with a token.
func scrape(t *testing.T, url, token string, client *http.Client) (map[string]*dto.MetricFamily, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %v %s", answer.Status, err, text)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return families, string(text)
}

// value returns a series' value; labels are name, value, name, value…
func value(families map[string]*dto.MetricFamily, name string, labels ...string) (float64, bool) {
	for _, m := range families[name].GetMetric() {
		got := map[string]string{}
		for _, l := range m.GetLabel() {
			got[l.GetName()] = l.GetValue()
		}
		fits := true
		for i := 0; i < len(labels); i += 2 {
			fits = fits && got[labels[i]] == labels[i+1]
		}
		if fits {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()), true
		}
	}
	return 0, false
}

// TestMetrics reads the figures of a control plane to which an agent sends
// events, and holds them against what happened.
func TestMetrics(t *testing.T) {
	p := start(t, t.TempDir())
	c := p.admin(t)
	d := enrolled(t, c)
	const sent = 50
	for range sent {
		d.send(t.Context(), t)
	}
	d.acknowledged(t, sent)
	eventually(t, func() string {
		if n := stored(t, c, d); n < sent {
			return "not every event is stored"
		}
		return ""
	})
	_, token, errs := command(t, "admin", "token", "--state", p.state)
	ca, err := os.ReadFile(filepath.Join(p.state, "keys", "ca.pem"))
	if err != nil {
		t.Fatal(err, errs)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	scraper := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer scraper.CloseIdleConnections()
	families, text := scrape(t, p.url, strings.TrimSpace(token), scraper)
	for _, want := range []struct {
		name   string
		labels []string
		least  float64
	}{
		{"komainu_build_info", []string{"version", "test"}, 1},
		{"komainu_ready", []string{"part", "the queue"}, 1},
		{"komainu_agent_sessions", nil, 1},
		{"komainu_agent_batches_total", []string{"result", "acknowledged"}, 1},
		{"komainu_queue_messages", nil, 0},
		{"komainu_events", nil, sent},
		{"komainu_event_store_bytes", nil, 1},
		{"komainu_disk_free_bytes", nil, 1},
		{"komainu_devices", []string{"coverage", "unlicensed"}, 0},
		{"komainu_open_alerts", []string{"severity", "High"}, 0},
		{"komainu_notification_messages", []string{"state", "pending"}, 0},
		{"komainu_ca_not_after_timestamp_seconds", nil, 1e9},
		{"komainu_http_requests_total", []string{"status", "200"}, 1},
		{"komainu_http_request_duration_seconds", nil, 1},
		{"process_resident_memory_bytes", nil, 1},
		{"go_goroutines", nil, 1},
	} {
		if v, ok := value(families, want.name, want.labels...); !ok || v < want.least {
			t.Errorf("%s%v is %v, there %v", want.name, want.labels, v, ok)
		}
	}
	for _, m := range families["komainu_reading_ok"].GetMetric() {
		if m.GetGauge().GetValue() != 1 {
			t.Errorf("could not be read: %v", m.GetLabel())
		}
	}
	if strings.Contains(text, string(d.id.Device)) {
		t.Error("the id of a device is in a label")
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		if strings.HasPrefix(problem.Metric, "komainu_") {
			t.Errorf("%s: %s", problem.Metric, problem.Text)
		}
	}
}
