package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"komainu/control/client"
	"komainu/fault"
)

// profile is what login keeps.
type profile struct {
	Server string `json:"server"`
	CA     string `json:"ca,omitempty"`
	Pin    string `json:"pin,omitempty"`
	Token  string `json:"token"`
}

func defaultProfile() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "komainu", "ctl.json")
}

// client returns a client for the server of the profile.
func (a *app) client() (*client.Client, error) {
	p, err := a.readProfile()
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Server: p.Server, CA: []byte(p.CA), Pin: p.Pin, Token: p.Token})
}

func (a *app) readProfile() (profile, error) {
	var p profile
	text, err := os.ReadFile(a.profile)
	if errors.Is(err, fs.ErrNotExist) {
		return p, fault.New(fault.Unauthentic, "sign in first: komainuctl login https://HOST:8443 --ca FILE")
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	return p, fault.Wrap(fault.Invalid, err, "read the profile %s", a.profile)
}

// tokenLife is how long the token of a login lasts, in seconds.
const tokenLife = 30 * 24 * 60 * 60

func (a *app) login() *cobra.Command {
	var user, caFile, pin, tokenFile string
	c := &cobra.Command{
		Use: "login SERVER", Short: "Keep the server and an API token for later commands",
		Long: "Reads the password from standard input and creates an API token with it, which needs the role admin;\nor takes an API token from --token-file.",
		Args: exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			p := profile{Server: args[0], Pin: pin}
			if caFile != "" {
				ca, err := os.ReadFile(caFile)
				if err != nil {
					return fault.Wrap(fault.Invalid, err, "read the CA")
				}
				p.CA = string(ca)
			}
			if tokenFile != "" {
				text, err := os.ReadFile(tokenFile)
				if err != nil {
					return fault.Wrap(fault.Invalid, err, "read the token")
				}
				p.Token = strings.TrimSpace(string(text))
			}
			api, err := client.New(client.Options{Server: p.Server, CA: []byte(p.CA), Pin: p.Pin, Token: p.Token})
			if err != nil {
				return err
			}
			if p.Token == "" {
				if p.Token, err = a.tokenByPassword(c, api, user); err != nil {
					return err
				}
			} else if _, err := api.Session(c.Context()); err != nil {
				return err
			}
			if err := p.save(a.profile); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.ErrOrStderr(), "signed in at %s\n", p.Server)
			return err
		},
	}
	c.Flags().StringVar(&user, "user", "admin", "name to sign in with")
	c.Flags().StringVar(&caFile, "ca", "", "certificate of the control plane's CA in PEM; it is at /ca.pem and in the state folder")
	c.Flags().StringVar(&pin, "pin", "", "SHA-256 of the CA's public key, in place of --ca")
	c.Flags().StringVar(&tokenFile, "token-file", "", "file with an API token")
	return c
}

func (a *app) tokenByPassword(c *cobra.Command, api *client.Client, user string) (string, error) {
	fmt.Fprint(c.ErrOrStderr(), "password: ")
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && line == "" {
		return "", fault.New(fault.Invalid, "no password on standard input")
	}
	s, err := api.SignIn(c.Context(), user, strings.TrimRight(line, "\r\n"))
	if err != nil {
		return "", err
	}
	if s.MustChangePassword {
		return "", fault.New(fault.Denied, "this is the one-time password; sign in at the portal and choose another one first")
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	t, err := api.CreateToken(c.Context(), "komainuctl on "+host, s.Role, tokenLife)
	if err != nil {
		return "", err
	}
	return t.Token, api.SignOut(c.Context())
}

func (p profile) save(file string) error {
	text, err := json.MarshalIndent(p, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o700)
	}
	if err == nil {
		err = os.WriteFile(file, append(text, '\n'), 0o600)
	}
	return fault.Wrap(fault.Unavailable, err, "keep the profile %s", file)
}
