// kafkajs: writes rows to a new topic (it reads with a group only, so it is a producer here). rows.py beside it describes
// the format. The library stopped at Kafka 3's time; what it speaks of each API is still served by Kafka 4: Produce 3-7,
// Metadata 0-6, CreateTopics 2-3, InitProducerId 0-1.
'use strict'

const fs = require('node:fs')
const readline = require('node:readline')
const { parseArgs } = require('node:util')
const { CompressionTypes, Kafka, Partitioners, logLevel } = require('kafkajs')

const PARTITIONS = 6
const ROWS_PER_REQUEST = 2000
const USAGE = 'usage: produce --bootstrap H:P --topic T --data FILE [--compression none|gzip]'

async function produce(options) {
  const kafka = new Kafka({ clientId: 'kafkajs', brokers: [options.bootstrap], logLevel: logLevel.WARN })
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({
    waitForLeaders: true,
    topics: [{
      topic: options.topic,
      numPartitions: PARTITIONS,
      replicationFactor: 1,
      configEntries: [{ name: 'retention.ms', value: '-1' }],
    }],
  })
  await admin.disconnect()

  // Idempotent, the library keeps one request in flight for each partition, and acks=all.
  const producer = kafka.producer({ idempotent: true, createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  const compression = options.compression === 'none' ? CompressionTypes.None : CompressionTypes.GZIP
  const send = messages => producer.send({ topic: options.topic, acks: -1, compression, messages })
  let messages = []
  for await (const line of readline.createInterface({ input: fs.createReadStream(options.data) })) {
    messages.push(parse(line))
    if (messages.length === ROWS_PER_REQUEST) {
      await send(messages)
      messages = []
    }
  }
  if (messages.length > 0) await send(messages)
  await producer.disconnect()
}

function parse(line) {
  const [key, value, timestamp, headers] = line.split('\t')
  return {
    key: key === '\\N' ? null : key,
    value,
    timestamp,
    headers: Object.fromEntries(headers.split(';').map(header => header.split(/=(.*)/s).slice(0, 2))),
  }
}

const [command, ...rest] = process.argv.slice(2)
if (command !== 'produce') {
  console.error(USAGE)
  process.exit(command === '--help' ? 0 : 2)
}
const { values } = parseArgs({
  args: rest,
  options: {
    bootstrap: { type: 'string' },
    topic: { type: 'string' },
    data: { type: 'string' },
    compression: { type: 'string', default: 'gzip' },
  },
})
produce(values).catch(error => {
  console.error(error)
  process.exit(1)
})
