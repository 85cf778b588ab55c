package policy

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
)

// ProxyAddress returns host and port of a proxy that is named as
// http://host:port, "" for "".
func ProxyAddress(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("the proxy is of the form http://host:port, not %q", text)
	case u.User != nil:
		return "", fmt.Errorf("a proxy with a user name and password cannot be used, because they would stand in a file and in the health report; let the proxy know this host by its address")
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80")), nil
}
