package main

import (
	"net"
	"sync"
)

// proxy stands between an agent and its control plane, so that the way
// between them can be cut, or go silent without either end being told.
type proxy struct {
	to       string
	listener net.Listener

	mu    sync.Mutex
	open  map[net.Conn]bool
	cut   bool
	quiet chan struct{} // closed while bytes flow
}

// newProxy listens on the loopback address and passes everything on to a
// port there.
func newProxy(to string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	flows := make(chan struct{})
	close(flows)
	p := &proxy{to: to, listener: l, open: map[net.Conn]bool{}, quiet: flows}
	go p.accept()
	return p, nil
}

// URL is what the agent calls instead of the control plane.
func (p *proxy) URL() string { return "https://" + p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.isCut() {
			near.Close()
			continue
		}
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			near.Close()
			continue
		}
		p.keep(near, far)
		go p.pump(near, far)
		go p.pump(far, near)
	}
}

func (p *proxy) isCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut
}

func (p *proxy) keep(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.open[c] = true
	}
}

// pump carries bytes in one direction. While the way is quiet it holds what
// it has read: neither end sees an error, as when a firewall forgets a flow.
func (p *proxy) pump(from, to net.Conn) {
	defer func() {
		from.Close()
		to.Close()
		p.mu.Lock()
		delete(p.open, from)
		delete(p.open, to)
		p.mu.Unlock()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		quiet := p.quiet
		p.mu.Unlock()
		<-quiet
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Cut ends every connection and refuses new ones, or lets them through again.
func (p *proxy) Cut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	if cut {
		for c := range p.open {
			c.Close()
		}
	}
}

// Silence stops all bytes on all connections, or lets them flow again.
func (p *proxy) Silence(silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if silent {
		p.quiet = make(chan struct{})
		return
	}
	select {
	case <-p.quiet:
	default:
		close(p.quiet)
	}
}

// Close stops listening and ends every connection.
func (p *proxy) Close() error {
	p.Silence(false)
	p.Cut(true)
	return p.listener.Close()
}
