package wire

import (
	"fmt"

	"komainu/drill"
	"komainu/wire/wirepb"
)

// maxDrill bounds the texts of a run: people read them, and one is kept for
// each run.
const maxDrill = 2 << 10

func (r *TestRun) frame() *wirepb.Frame {
	return &wirepb.Frame{Body: &wirepb.Frame_TestRun{TestRun: &wirepb.TestRun{
		Id: sentence(r.Run.ID), Test: sentence(r.Run.Test), StartedNs: timeTo(r.Run.Started), Outcome: string(r.Run.Outcome), Folder: sentence(r.Run.Folder),
		Finding: sentence(r.Run.Finding), Stages: stagesTo(r.Run.Stages), Reason: reasonTo(r.Run.Reason), Warnings: reasonsTo(r.Run.Warnings),
	}}}
}

func (s *TestStages) frame() *wirepb.Frame {
	return &wirepb.Frame{Body: &wirepb.Frame_TestStages{TestStages: &wirepb.TestStages{Run: sentence(s.Run), Stages: stagesTo(s.Stages)}}}
}

// sentence makes a text fit.
func sentence(s string) string {
	s = text(s)
	if len(s) <= maxDrill {
		return s
	}
	return text(s[:maxDrill-16]) // what a cut leaves of a character is escaped
}

func stagesTo(list []drill.Stage) []*wirepb.TestStage {
	var out []*wirepb.TestStage
	for _, s := range clip(list, maxStages) {
		out = append(out, &wirepb.TestStage{Id: sentence(string(s.ID)), State: sentence(string(s.State)), TimeNs: timeTo(s.At), Detail: sentence(s.Detail)})
	}
	return out
}

func reasonTo(r *drill.Reason) *wirepb.TestReason {
	if r == nil {
		return nil
	}
	return &wirepb.TestReason{Id: sentence(string(r.ID)), Text: sentence(r.Text), Remedy: sentence(r.Remedy), Detail: sentence(r.Detail)}
}

func reasonsTo(list []drill.Reason) []*wirepb.TestReason {
	var out []*wirepb.TestReason
	for i := range clip(list, maxStages) {
		out = append(out, reasonTo(&list[i]))
	}
	return out
}

func testRunOf(r *wirepb.TestRun) (Message, error) {
	stages, err := stagesOf(r.GetStages())
	if err != nil {
		return nil, err
	}
	for _, s := range []string{r.GetId(), r.GetTest(), r.GetOutcome(), r.GetFolder(), r.GetFinding()} {
		if len(s) > maxDrill {
			return nil, tooLong(s)
		}
	}
	run := drill.Run{ID: r.GetId(), Test: r.GetTest(), Started: timeOf(r.GetStartedNs()), Outcome: drill.Outcome(r.GetOutcome()), Folder: r.GetFolder(), Finding: r.GetFinding(), Stages: stages}
	if r.GetReason() != nil {
		reason, err := reasonOf(r.GetReason())
		if err != nil {
			return nil, err
		}
		run.Reason = &reason
	}
	for _, w := range r.GetWarnings() {
		warning, err := reasonOf(w)
		if err != nil {
			return nil, err
		}
		run.Warnings = append(run.Warnings, warning)
	}
	return &TestRun{run}, nil
}

func stagesOf(list []*wirepb.TestStage) ([]drill.Stage, error) {
	var out []drill.Stage
	for _, s := range list {
		if max(len(s.GetId()), len(s.GetState()), len(s.GetDetail())) > maxDrill {
			return nil, tooLong(s.GetDetail())
		}
		out = append(out, drill.Stage{ID: drill.StageID(s.GetId()), State: drill.State(s.GetState()), At: timeOf(s.GetTimeNs()), Detail: s.GetDetail()})
	}
	return out, nil
}

func reasonOf(r *wirepb.TestReason) (drill.Reason, error) {
	if max(len(r.GetId()), len(r.GetText()), len(r.GetRemedy()), len(r.GetDetail())) > maxDrill {
		return drill.Reason{}, tooLong(r.GetText())
	}
	return drill.Reason{ID: drill.ReasonID(r.GetId()), Text: r.GetText(), Remedy: r.GetRemedy(), Detail: r.GetDetail()}, nil
}

func tooLong(s string) error {
	return fmt.Errorf("%w: a text of %d bytes in a report, the limit is %d", ErrFrame, len(s), maxDrill)
}
