package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Paths of the server.
const (
	// HealthPath answers 200 as long as the process is alive.
	HealthPath = "/healthz"
	// ReadyPath answers 200 when all checks pass, else 503, with a Report.
	ReadyPath = "/readyz"
	// MetricsPath is for Prometheus.
	MetricsPath = "/metrics"
)

// Server serves health, readiness and metrics.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Listen opens the server's address. Nothing is answered before Serve.
func Listen(address string, health *Health, metrics prometheus.Gatherer, log *slog.Logger) (*Server, error) {
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("health server: HTTP_ADDRESS %s is in use, perhaps by another worker or starter on this host: "+
			"give each its own, such as HTTP_ADDRESS=:8081, or HTTP_ADDRESS=none for no server", address)
	}
	if err != nil {
		return nil, fmt.Errorf("health server: %w; choose another HTTP_ADDRESS", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+HealthPath, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n") // whoever asked is gone
	})
	mux.HandleFunc("GET "+ReadyPath, health.readyz)
	mux.Handle("GET "+MetricsPath, promhttp.HandlerFor(metrics, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		// One collector that fails must not hide the others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
	}))
	return &Server{listener: listener, http: &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers until Close.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("health server: %w", err)
	}
	return nil
}

// Close lets the requests under way end, as long as ctx lasts.
func (s *Server) Close(ctx context.Context) error { return s.http.Shutdown(ctx) }
