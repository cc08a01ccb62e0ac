// franz-go: writes rows to a new topic, reads a topic back. rows.py beside it describes the formats.
package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const partitions = 6

type options struct{ bootstrap, topic, data, out, compression string }

func main() {
	log.SetFlags(0)
	var o options
	flags := flag.NewFlagSet("produce|consume", flag.ExitOnError)
	flags.StringVar(&o.bootstrap, "bootstrap", "", "`HOST:PORT`")
	flags.StringVar(&o.topic, "topic", "", "topic")
	flags.StringVar(&o.data, "data", "", "`file` of rows to produce")
	flags.StringVar(&o.out, "out", "", "`file` for the records consumed")
	flags.StringVar(&o.compression, "compression", "gzip", "none, gzip, snappy, lz4 or zstd")
	command := "--help"
	if len(os.Args) > 1 {
		command = os.Args[1]
		flags.Parse(os.Args[2:])
	}
	var err error
	switch command {
	case "produce":
		err = produce(o)
	case "consume":
		err = consume(o)
	default:
		flags.Usage()
		if command != "--help" {
			os.Exit(2)
		}
	}
	if err != nil {
		log.Fatal(err)
	}
}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// Idempotence and acks=all are this client's defaults.
func produce(o options) error {
	ctx := context.Background()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(o.bootstrap),
		kgo.ProducerBatchCompression(codecs[o.compression]),
		kgo.ProducerLinger(20*time.Millisecond),
		kgo.MaxBufferedRecords(100_000),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	retention := "-1"
	configs := map[string]*string{"retention.ms": &retention}
	if _, err := kadm.NewClient(client).CreateTopic(ctx, partitions, 1, configs, o.topic); err != nil {
		return err
	}

	data, err := os.Open(o.data)
	if err != nil {
		return err
	}
	defer data.Close()
	var failure atomic.Pointer[error]
	rows := bufio.NewScanner(data)
	for rows.Scan() {
		record, err := parse(rows.Text(), o.topic)
		if err != nil {
			return err
		}
		client.Produce(ctx, record, func(_ *kgo.Record, err error) {
			if err != nil {
				failure.CompareAndSwap(nil, &err)
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	if err := failure.Load(); err != nil {
		return *err
	}
	return rows.Err()
}

func parse(row, topic string) (*kgo.Record, error) {
	field := strings.Split(row, "\t")
	millis, err := strconv.ParseInt(field[2], 10, 64)
	if err != nil {
		return nil, err
	}
	record := &kgo.Record{Topic: topic, Value: []byte(field[1]), Timestamp: time.UnixMilli(millis)}
	if field[0] != `\N` {
		record.Key = []byte(field[0])
	}
	for _, header := range strings.Split(field[3], ";") {
		name, value, _ := strings.Cut(header, "=")
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	return record, nil
}

func consume(o options) error {
	ctx := context.Background()
	from := make(map[int32]kgo.Offset)
	for p := range int32(partitions) {
		from[p] = kgo.NewOffset().AtStart()
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(o.bootstrap),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{o.topic: from}),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	starts, err := admin.ListStartOffsets(ctx, o.topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return err
	}
	ends, err := admin.ListEndOffsets(ctx, o.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	left := make(map[int32]int64) // partition: its end
	ends.Each(func(end kadm.ListedOffset) {
		if start, _ := starts.Lookup(o.topic, end.Partition); start.Offset < end.Offset {
			left[end.Partition] = end.Offset
		}
	})

	file, err := os.Create(o.out)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(file)
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if end, ok := left[r.Partition]; ok && r.Offset < end {
				writeLine(out, r)
				if r.Offset+1 == end {
					delete(left, r.Partition)
				}
			}
		})
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return file.Close()
}

func writeLine(out *bufio.Writer, r *kgo.Record) {
	fmt.Fprintf(out, "%d\t%d\t%d\t%s\t%s\t", r.Partition, r.Offset, r.Timestamp.UnixMilli(), text(r.Key), text(r.Value))
	for i, header := range r.Headers {
		if i > 0 {
			out.WriteByte(';')
		}
		fmt.Fprintf(out, "%s=%s", header.Key, text(header.Value))
	}
	out.WriteByte('\n')
}

var escapes = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)

func text(data []byte) string {
	if data == nil {
		return `\N`
	}
	return escapes.Replace(string(bytes.ToValidUTF8(data, []byte("\uFFFD"))))
}
