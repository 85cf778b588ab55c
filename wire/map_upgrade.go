package wire

import (
	"time"

	"komainu/deploy"
	"komainu/drill"
	"komainu/wire/wirepb"
)

func upgradeTo(u deploy.Upgrade) *wirepb.Upgrade {
	if u == (deploy.Upgrade{}) {
		return nil
	}
	return &wirepb.Upgrade{Id: sentence(u.ID), Version: sentence(u.Version), Downgrade: u.Downgrade}
}

func upgradeOf(u *wirepb.Upgrade) (deploy.Upgrade, error) {
	for _, s := range []string{u.GetId(), u.GetVersion()} {
		if len(s) > maxDrill {
			return deploy.Upgrade{}, tooLong(s)
		}
	}
	return deploy.Upgrade{ID: u.GetId(), Version: u.GetVersion(), Downgrade: u.GetDowngrade()}, nil
}

func (u *UpgradeStatus) frame() *wirepb.Frame {
	s := u.Status
	out := &wirepb.UpgradeStatus{
		Id: sentence(s.ID), From: sentence(s.From), To: sentence(s.To), State: sentence(string(s.State)),
		StartedNs: timeTo(s.Started), EndedNs: timeTo(s.Ended), GapNs: int64(s.Gap),
	}
	if r := s.Reason; r != nil {
		out.Reason = reasonTo(&drill.Reason{ID: drill.ReasonID(r.ID), Text: r.Text, Remedy: r.Remedy, Detail: r.Detail})
	}
	return &wirepb.Frame{Body: &wirepb.Frame_UpgradeStatus{UpgradeStatus: out}}
}

func upgradeStatusOf(u *wirepb.UpgradeStatus) (Message, error) {
	for _, s := range []string{u.GetId(), u.GetFrom(), u.GetTo(), u.GetState()} {
		if len(s) > maxDrill {
			return nil, tooLong(s)
		}
	}
	s := deploy.UpgradeStatus{
		ID: u.GetId(), From: u.GetFrom(), To: u.GetTo(), State: deploy.UpgradeState(u.GetState()),
		Started: timeOf(u.GetStartedNs()), Ended: timeOf(u.GetEndedNs()), Gap: time.Duration(u.GetGapNs()),
	}
	if u.GetReason() != nil {
		r, err := reasonOf(u.GetReason())
		if err != nil {
			return nil, err
		}
		s.Reason = &deploy.Reason{ID: deploy.ReasonID(r.ID), Text: r.Text, Remedy: r.Remedy, Detail: r.Detail}
	}
	return &UpgradeStatus{s}, nil
}
