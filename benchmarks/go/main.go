// The work of benchmarks/pipeline.py as the specification's own language would do it:
// encoding/json and compress/gzip, batches of 100. Prints microseconds of CPU a point.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"sort"
	"syscall"
	"time"
)

const (
	peers  = 10000
	batch  = 100
	rounds = 15
)

type tunnelStats struct {
	PeerID             string    `json:"peer_id"`
	LastHandshakeTime  time.Time `json:"last_handshake_time"`
	RxBytes            uint64    `json:"rx_bytes"`
	TxBytes            uint64    `json:"tx_bytes"`
	HandshakeSucceeded bool      `json:"handshake_succeeded"`
	HandshakeStale     bool      `json:"handshake_stale"`
	PacketLossPercent  float64   `json:"packet_loss_percent"`
}

type latencyResult struct {
	PeerID  string `json:"peer_id"`
	RTTNano int64  `json:"rtt_nano"`
}

type metricPoint struct {
	Timestamp time.Time       `json:"timestamp"`
	Group     string          `json:"group"`
	PeerID    string          `json:"peer_id,omitempty"`
	Data      json.RawMessage `json:"data"`
}

func marshal(value any) json.RawMessage {
	encoded, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return encoded
}

func collect(ids []string, now time.Time) []metricPoint {
	var points []metricPoint
	for i, id := range ids {
		age := time.Duration(i*7919%180000000) * time.Microsecond
		points = append(points, metricPoint{now, "tunnel", id, marshal(tunnelStats{
			id, now.Add(-age), uint64(i) * 123456789, uint64(i) * 987654, true, i%50 == 0,
			float64(i%300) / 100,
		})})
	}
	for i, id := range ids {
		data := marshal(latencyResult{id, int64(1000000 + i*19937)})
		points = append(points, metricPoint{now, "latency", id, data})
	}
	return points
}

func deliver(points []metricPoint) {
	for start := 0; start < len(points); start += batch {
		var body bytes.Buffer
		writer := gzip.NewWriter(&body)
		if _, err := writer.Write(marshal(points[start : start+batch])); err != nil {
			panic(err)
		}
		if err := writer.Close(); err != nil {
			panic(err)
		}
	}
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	micros := usage.Utime.Usec + usage.Stime.Usec
	return float64(usage.Utime.Sec+usage.Stime.Sec) + float64(micros)/1e6
}

func main() {
	ids := make([]string, peers)
	for i := range ids {
		ids[i] = fmt.Sprintf("node-%05d.site-%02d", i, i%37)
	}
	now := time.Now().UTC()
	deliver(collect(ids, now))
	var taken []float64
	for round := 0; round < rounds; round++ {
		began := cpuSeconds()
		deliver(collect(ids, now))
		taken = append(taken, cpuSeconds()-began)
	}
	sort.Float64s(taken)
	fmt.Printf("%.3f\n", taken[rounds/2]/(2*peers)*1e6)
}
