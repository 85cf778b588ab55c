package selftest

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"komainu/content/edrtest"
	"komainu/drill"
	"komainu/event"
)

// Ids of scenarios that are handled by name.
const (
	blockTest    = "policy-block"
	archiveTest  = "eicar-archive"
	behaviorTest = "behavior"
)

// fileName is the test file within the folder of a run.
const fileName = "eicar.com"

// ruleOf returns the behaviour rule that a scenario is for.
func ruleOf(scenario string) string {
	if scenario == behaviorTest {
		return "hidden-file-execution"
	}
	return "sensitive-enumeration"
}

// variants are the options of the EDR test.
var variants = map[string][]string{
	"edr-test": nil, "edr-test-python": {"--python"}, "edr-test-builtins": {"--builtins"}, "edr-test-renamed": {"--renamed"},
}

// perform does what the scenario says and returns why it could not.
func (r *Runner) perform(ctx context.Context, u *run, wanted string) *drill.Reason {
	facts := r.cfg.Facts()
	folder, err := r.makeFolder(u, wanted, facts)
	if err != nil {
		return failed(err)
	}
	u.edit(func() { u.folder, u.state.Folder = folder, folder })
	r.report(u)
	switch {
	case u.scenario.ID == behaviorTest:
		return r.hiddenProgram(ctx, u, folder)
	case u.scenario.Behavior:
		return r.script(ctx, u, variants[u.scenario.ID])
	default:
		return r.testFile(ctx, u, folder)
	}
}

func failed(err error) *drill.Reason {
	return &drill.Reason{ID: drill.ScenarioFailed, Text: "the test could not be carried out: " + err.Error(), Remedy: "mend that and run the test again", Detail: err.Error()}
}

// File is one that the exercise writes and opens.
type File struct {
	Name    string `json:"name"`
	Content []byte `json:"content"`
}

// Exercised is what became of the opens of the test files.
type Exercised struct {
	Read   int `json:"read"`   // opened and read: nothing stood in the way
	Denied int `json:"denied"` // refused with EPERM
	Gone   int `json:"gone"`   // taken away before it was opened
}

// Exercise is what the process of the exercise does: it writes the files into
// a folder and opens each.
func Exercise(folder string, files []File) (Exercised, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return Exercised{}, err
	}
	defer root.Close()
	var out Exercised
	for _, f := range files {
		err := root.WriteFile(f.Name, f.Content, 0o600)
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			return out, err
		}
		_, err = root.ReadFile(f.Name)
		switch {
		case errors.Is(err, fs.ErrPermission):
			out.Denied++
		case errors.Is(err, fs.ErrNotExist):
			out.Gone++
		case err != nil:
			return out, err
		default:
			out.Read++
		}
	}
	return out, nil
}

func (r *Runner) testFile(ctx context.Context, u *run, folder string) *drill.Reason {
	content := eicar()
	if u.scenario.ID == archiveTest {
		for range 2 {
			var err error
			if content, err = zipped(content); err != nil {
				return failed(err)
			}
		}
	}
	if r.cfg.Exercise == nil {
		return &drill.Reason{ID: drill.RealTimeMissing, Text: "this platform has no real-time protection in this version", Remedy: "run the test on Linux"}
	}
	out, err := r.cfg.Exercise(ctx, folder, []File{{fileName, content}})
	if err != nil {
		return failed(err)
	}
	if out.Denied+out.Gone > 0 {
		what := "the program that opened the file was refused"
		if out.Gone > 0 {
			what = "the file was taken away before the program opened it"
		}
		u.edit(func() { u.state.Reach(drill.Kernel, time.Now(), what) })
	}
	return nil
}

func zipped(content []byte) ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(fileName)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = z.Close()
	}
	return b.Bytes(), err
}

// eicar makes the test file. Its parts are turned by one, so that no part of
// it stands in this file or in the program.
func eicar() []byte {
	parts := [...]string{"Y6P\"Q&ABQ\\5]Q[Y65)", "Q_*8DD*8~%FJDBS.", "TUBOEBSE.BOUJWJSVT", ".UFTU.GJMF\"%I,I+"}
	var b []byte
	for _, p := range parts {
		for i := range len(p) {
			b = append(b, p[i]-1)
		}
	}
	return b
}

// script runs the EDR test as a shell script, which is what an intruder's
// would be.
func (r *Runner) script(ctx context.Context, u *run, options []string) *drill.Reason {
	shell, err := exec.LookPath("/bin/sh")
	if err != nil {
		return &drill.Reason{ID: drill.ProgramMissing, Text: "this host has no shell at /bin/sh", Remedy: "run the test behavior, which needs none", Detail: "/bin/sh"}
	}
	file := filepath.Join(u.snapshot().Folder, "edr_test_linux.sh")
	if err := os.WriteFile(file, edrtest.Script(), 0o700); err != nil {
		return failed(err)
	}
	cmd := exec.CommandContext(ctx, shell, append([]string{file}, options...)...)
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/root" // a service has no HOME
	}
	cmd.Env = []string{"HOME=" + home, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := r.started(u, cmd); err != nil {
		return failed(err)
	}
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == edrtest.ExitNeeds {
		text := strings.TrimSpace(out.String())
		return &drill.Reason{ID: drill.ProgramMissing, Text: text, Remedy: "run the test edr-test, which needs nothing but a shell", Detail: "python3"}
	}
	if err != nil {
		return failed(fmt.Errorf("%w: %s", err, strings.TrimSpace(out.String())))
	}
	return nil
}

// started starts a process and notes which one is the run's.
func (r *Runner) started(u *run, cmd *exec.Cmd) error {
	// Under the lock, so that what the sensor tells of it finds the id there.
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	u.process = event.PID(cmd.Process.Pid)
	return nil
}

// hiddenProgram runs the smallest program there is from a hidden file.
func (r *Runner) hiddenProgram(ctx context.Context, u *run, folder string) *drill.Reason {
	program, ok := programs[runtime.GOARCH]
	if !ok {
		return failed(fmt.Errorf("there is no test program for %s", runtime.GOARCH))
	}
	file := filepath.Join(folder, ".komainu-test")
	if err := os.WriteFile(file, program(), 0o700); err != nil {
		return failed(err)
	}
	cmd := exec.CommandContext(ctx, file)
	if err := r.started(u, cmd); err != nil {
		return failed(err)
	}
	if err := cmd.Wait(); err != nil {
		return failed(err)
	}
	return nil
}
