// Goserver is a web server that keeps what it is given in memory, handled by
// several goroutines, and in a file.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
)

type store struct {
	mu    sync.Mutex
	items []string
	file  *os.File
	ticks int
}

func (s *store) put(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.items = append(s.items, string(b))
	fmt.Fprintf(s.file, "%s\n", b)
}

func (s *store) get(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := os.ReadFile(s.file.Name())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "memory\n%s\nfile\n%s", strings.Join(s.items, "\n"), b)
}

// timers answers when the runtime's timers, network poller, garbage collector
// and scheduler have done something.
func (s *store) timers(w http.ResponseWriter, r *http.Request) {
	runtime.GC()
	s.mu.Lock()
	before := s.ticks
	s.mu.Unlock()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
		s.mu.Lock()
		now := s.ticks
		s.mu.Unlock()
		if now > before+2 {
			fmt.Fprintln(w, "ticking")
			return
		}
	}
}

func main() {
	f, err := os.OpenFile("/srv/items", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	s := &store{file: f}
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			s.mu.Lock()
			s.ticks++
			s.mu.Unlock()
		}
	}()
	http.HandleFunc("PUT /items", s.put)
	http.HandleFunc("GET /items", s.get)
	http.HandleFunc("GET /timers", s.timers)
	log.Fatal(http.ListenAndServe(":8080", nil))
}
