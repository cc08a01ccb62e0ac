// sarama: writes rows to a new topic, reads a topic back. rows.py beside it describes the formats.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"
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
	flags.StringVar(&o.compression, "compression", "snappy", "none, gzip, snappy, lz4 or zstd")
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

func configured() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V4_3_0_0
	return config
}

func produce(o options) error {
	config := configured()
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1 // the library asks for it with idempotence
	config.Producer.Flush.Frequency = 20 * time.Millisecond
	config.Producer.Return.Successes = true
	if err := config.Producer.Compression.UnmarshalText([]byte(o.compression)); err != nil {
		return err
	}
	if err := create(o, config); err != nil {
		return err
	}
	producer, err := sarama.NewAsyncProducer([]string{o.bootstrap}, config)
	if err != nil {
		return err
	}
	finished := make(chan error)
	go func() { finished <- results(producer) }()

	data, err := os.Open(o.data)
	if err != nil {
		return err
	}
	defer data.Close()
	rows := bufio.NewScanner(data)
	for rows.Scan() {
		message, err := parse(rows.Text(), o.topic)
		if err != nil {
			return err
		}
		producer.Input() <- message
	}
	producer.AsyncClose()
	if err := <-finished; err != nil {
		return err
	}
	return rows.Err()
}

// Drains both channels until the producer is closed; the first error counts.
func results(producer sarama.AsyncProducer) (first error) {
	successes, errors := producer.Successes(), producer.Errors()
	for successes != nil || errors != nil {
		select {
		case _, ok := <-successes:
			if !ok {
				successes = nil
			}
		case err, ok := <-errors:
			if !ok {
				errors = nil
			} else if first == nil {
				first = err
			}
		}
	}
	return first
}

func create(o options, config *sarama.Config) error {
	admin, err := sarama.NewClusterAdmin([]string{o.bootstrap}, config)
	if err != nil {
		return err
	}
	defer admin.Close()
	retention := "-1"
	return admin.CreateTopic(o.topic, &sarama.TopicDetail{
		NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: map[string]*string{"retention.ms": &retention},
	}, false)
}

func parse(row, topic string) (*sarama.ProducerMessage, error) {
	field := strings.Split(row, "\t")
	millis, err := strconv.ParseInt(field[2], 10, 64)
	if err != nil {
		return nil, err
	}
	message := &sarama.ProducerMessage{
		Topic: topic, Value: sarama.StringEncoder(field[1]), Timestamp: time.UnixMilli(millis),
	}
	if field[0] != `\N` {
		message.Key = sarama.StringEncoder(field[0])
	}
	for _, header := range strings.Split(field[3], ";") {
		name, value, _ := strings.Cut(header, "=")
		message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(name), Value: []byte(value)})
	}
	return message, nil
}

func consume(o options) error {
	client, err := sarama.NewClient([]string{o.bootstrap}, configured())
	if err != nil {
		return err
	}
	defer client.Close()
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return err
	}
	defer consumer.Close()
	file, err := os.Create(o.out)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(file)
	for p := range int32(partitions) {
		if err := consumePartition(client, consumer, o.topic, p, out); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return file.Close()
}

func consumePartition(client sarama.Client, consumer sarama.Consumer, topic string, p int32, out *bufio.Writer) error {
	start, err := client.GetOffset(topic, p, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	end, err := client.GetOffset(topic, p, sarama.OffsetNewest)
	if err != nil || start == end {
		return err
	}
	messages, err := consumer.ConsumePartition(topic, p, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer messages.Close()
	for message := range messages.Messages() {
		if message.Offset < end {
			writeLine(out, message)
		}
		if message.Offset+1 >= end {
			break
		}
	}
	return nil
}

func writeLine(out *bufio.Writer, m *sarama.ConsumerMessage) {
	fmt.Fprintf(out, "%d\t%d\t%d\t%s\t%s\t", m.Partition, m.Offset, m.Timestamp.UnixMilli(), text(m.Key), text(m.Value))
	for i, header := range m.Headers {
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
