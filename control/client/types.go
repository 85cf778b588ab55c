package client

import (
	"encoding/json"
	"time"

	"komainu/deploy"
	"komainu/health"
	"komainu/policy"
)

// List is a page of a list.
type List[T any] struct {
	Items []T    `json:"items"`
	Total int    `json:"total"`
	Next  string `json:"next"` // cursor of the next page, empty on the last one
}

// Ref names something by id and name.
type Ref struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Session is who is signed in.
type Session struct {
	User struct {
		ID   string `json:"id"`
		Name string `json:"name"`
		Role string `json:"role"`
	} `json:"user"`
	MustChangePassword bool     `json:"mustChangePassword"`
	Organization       Ref      `json:"organization"`
	Version            string   `json:"version"`
	Role               string   `json:"role"`
	Permissions        []string `json:"permissions"`
}

// Token is an API token; Token holds the secret after its creation only.
type Token struct {
	ID        string    `json:"id"`
	Label     string    `json:"label"`
	Role      string    `json:"role"`
	CreatedAt time.Time `json:"createdAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	Token     string    `json:"token,omitempty"`
}

// Environment is the scope of a plan.
type Environment struct {
	ID      string      `json:"id"`
	Name    string      `json:"name"`
	Kind    string      `json:"kind"`
	Plan    policy.Tier `json:"plan"`
	Devices struct {
		Total     int `json:"total"`
		Active    int `json:"active"`
		Protected int `json:"protected"`
	} `json:"devices"`
}

// Plan is the plan of an environment.
type Plan struct {
	Environment string      `json:"environment"`
	Servers     bool        `json:"servers"`
	Tier        policy.Tier `json:"tier"`
	Version     uint64      `json:"version"`
	UpdatedAt   time.Time   `json:"updatedAt"`
	UpdatedBy   string      `json:"updatedBy"`
	Settings    []struct {
		ID         string `json:"id"`
		Name       string `json:"name"`
		Enabled    bool   `json:"enabled"`
		Changeable bool   `json:"changeable"`
		Reason     string `json:"reason"`
	} `json:"settings"`
	Filesystems []policy.FilesystemRule `json:"filesystems"`
}

// PlanChange is what to save of a plan.
type PlanChange struct {
	Version     uint64                  `json:"version"` // that the change is based on
	Servers     bool                    `json:"servers"`
	Tier        policy.Tier             `json:"tier,omitempty"`
	Settings    map[string]bool         `json:"settings,omitempty"`
	Filesystems []policy.FilesystemRule `json:"filesystems,omitempty"`
}

// JoinToken lets hosts enrol; Token, Command and Snippets are there after its creation
// only.
type JoinToken struct {
	ID        string    `json:"id"`
	Label     string    `json:"label"`
	ExpiresAt time.Time `json:"expiresAt"`
	MaxUses   int       `json:"maxUses"`
	Uses      int       `json:"uses"`
	Revoked   bool      `json:"revoked"`
	Token     string    `json:"token,omitempty"`
	Command   string    `json:"command,omitempty"`
	// Snippets bring the token to servers, each to be pasted as it is.
	Snippets *deploy.Ways `json:"snippets,omitempty"`
}

// JoinTokenRequest asks for a join token.
type JoinTokenRequest struct {
	Label            string `json:"label,omitempty"`
	ExpiresInSeconds int64  `json:"expiresInSeconds,omitempty"`
	MaxUses          int    `json:"maxUses,omitempty"`
}

// Device is a device; what only its page tells is nil in lists.
type Device struct {
	ID               string    `json:"id"`
	Name             string    `json:"name"`
	Environment      Ref       `json:"environment"`
	OSPlatform       string    `json:"osPlatform"`
	OSDistribution   string    `json:"osDistribution"`
	OSVersion        string    `json:"osVersion"`
	Kernel           string    `json:"kernel"`
	AgentVersion     string    `json:"agentVersion"`
	IPAddresses      []string  `json:"ipAddresses"`
	FirstSeen        time.Time `json:"firstSeen"`
	LastSeen         time.Time `json:"lastSeen"`
	OnboardingStatus string    `json:"onboardingStatus"`
	SensorHealth     string    `json:"sensorHealth"`
	Connected        bool      `json:"connected"`
	RiskLevel        string    `json:"riskLevel"`
	ActiveAlerts     int       `json:"activeAlerts"`
	Plan             string    `json:"plan"`
	Protection       struct {
		RealTime string `json:"realTime"`
		Mode     string `json:"mode"`
		Healthy  bool   `json:"healthy"`
		Licensed bool   `json:"licensed"`
	} `json:"protection"`

	Health    *health.Report `json:"health,omitempty"`
	Extension *struct {
		Name              string `json:"name"`
		Version           string `json:"version"`
		ProvisioningState string `json:"provisioningState"`
		Message           string `json:"message"`
	} `json:"extension,omitempty"`
	Policy *struct {
		Version          uint64     `json:"version"`
		ConfirmedVersion uint64     `json:"confirmedVersion"`
		ConfirmedAt      *time.Time `json:"confirmedAt"`
		Error            string     `json:"error"`
	} `json:"policy,omitempty"`
}

// Alert is an alert; Tree, Evidence and Events are on its page only.
type Alert struct {
	ID              string          `json:"id"`
	Title           string          `json:"title"`
	Severity        string          `json:"severity"`
	Status          string          `json:"status"`
	Category        string          `json:"category"`
	DetectionSource string          `json:"detectionSource"`
	Device          Ref             `json:"device"`
	IncidentID      string          `json:"incidentId"`
	FirstActivity   time.Time       `json:"firstActivity"`
	LastActivity    time.Time       `json:"lastActivity"`
	CreatedAt       time.Time       `json:"createdAt"`
	ThreatName      string          `json:"threatName"`
	State           string          `json:"state"`
	Summary         string          `json:"summary"`
	Occurrences     int             `json:"occurrences"`
	Test            bool            `json:"test"`
	Tree            []Process       `json:"tree,omitempty"`
	Evidence        json.RawMessage `json:"evidence,omitempty"`
	Events          []Event         `json:"events,omitempty"`
}

// Process is a process in a tree.
type Process struct {
	Key    string   `json:"key"`
	Parent string   `json:"parent"`
	Path   string   `json:"path"`
	Name   string   `json:"name"`
	Args   []string `json:"args"`
}

// Event is an event of a timeline. Its blocks are left as they came.
type Event struct {
	ID        string          `json:"id"`
	Time      time.Time       `json:"time"`
	Action    string          `json:"action"`
	Table     string          `json:"table"`
	Source    string          `json:"source"`
	Summary   string          `json:"summary"`
	Initiator *Process        `json:"initiator,omitempty"`
	Process   *Process        `json:"process,omitempty"`
	File      json.RawMessage `json:"file,omitempty"`
}

// Incident is an incident; AlertItems are on its page only.
type Incident struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Severity string `json:"severity"`
	Status   string `json:"status"`
	Assignee string `json:"assignee"`
	Alerts   struct {
		Active int `json:"active"`
		Total  int `json:"total"`
	} `json:"alerts"`
	Devices       []Ref     `json:"devices"`
	Categories    []string  `json:"categories"`
	FirstActivity time.Time `json:"firstActivity"`
	LastActivity  time.Time `json:"lastActivity"`
	AlertItems    []Alert   `json:"alertItems,omitempty"`
}
