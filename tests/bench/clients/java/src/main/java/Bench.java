import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** The official Java client: {@code WORKLOAD --name value ..}, one line of JSON. {@code run} says what the workloads are. */
public final class Bench {
    private static final int WARMUP = 0;
    private static final int MEASURED = 1;
    private static final int OVER = 2;

    /** Calls whose latency has room; more than any run makes. */
    private static final int LATENCIES = 1 << 23;

    private final String workload;
    private final Map<String, String> settings = new HashMap<>();

    private Bench(String[] words) {
        workload = words[0];
        for (int at = 1; at + 1 < words.length; at += 2) {
            settings.put(words[at].substring(2), words[at + 1]);
        }
    }

    public static void main(String[] words) throws Exception {
        Bench bench = new Bench(words);
        String line = bench.workload.equals("consume") ? bench.consume() : bench.produce();
        System.out.println(line);
        // Threads of the client that are no daemons would keep the process alive.
        System.exit(0);
    }

    private String text(String name) {
        String value = settings.get(name);
        if (value == null) {
            throw new IllegalArgumentException("--" + name + " is missing");
        }
        return value;
    }

    private int count(String name) {
        return Integer.parseInt(text(name));
    }

    private long millis(String name) {
        return (long) (Double.parseDouble(text(name)) * 1e3);
    }

    // ---- Time and processor time.

    /** The processor time of all threads, in user mode and in the kernel: with the JIT compiler and the collector. */
    private record Sample(long at, long cpu) {
        static Sample now() {
            OperatingSystemMXBean system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
            return new Sample(System.nanoTime(), system.getProcessCpuTime());
        }

        double seconds(Sample earlier) {
            return (at - earlier.at) / 1e9;
        }

        double cpuMicros(Sample earlier) {
            return (cpu - earlier.cpu) / 1e3;
        }
    }

    // ---- Producing.

    private volatile int phase = WARMUP;
    private final AtomicLong next = new AtomicLong();
    private final AtomicLong acknowledged = new AtomicLong();
    private final AtomicLong measured = new AtomicLong();
    private final AtomicInteger errors = new AtomicInteger();
    private volatile String error;
    private final AtomicInteger calls = new AtomicInteger();
    private final AtomicIntegerArray latencies = new AtomicIntegerArray(LATENCIES);

    private byte[] template;

    private Message message(String topic) {
        byte[] body = template.clone();
        ByteBuffer.wrap(body).putLong(next.getAndIncrement());
        return new Message(topic, body);
    }

    private void stored(SendResult result, int messages, long began) {
        if (result.getSendStatus() != SendStatus.SEND_OK) {
            failed(result.toString());
            return;
        }
        acknowledged.addAndGet(messages);
        if (phase == MEASURED) {
            measured.addAndGet(messages);
            int at = calls.getAndIncrement();
            if (at < LATENCIES) {
                latencies.lazySet(at, (int) ((System.nanoTime() - began) / 1000));
            }
        }
    }

    private void failed(String why) {
        errors.incrementAndGet();
        error = why;
    }

    private String produce() throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("bench_clients");
        producer.setNamesrvAddr(text("namesrv"));
        producer.setAutoBatch(workload.equals("auto"));
        producer.start();
        template = new byte[count("bytes")];
        Arrays.fill(template, (byte) 'x');

        int inFlight = count("in-flight");
        Semaphore room = new Semaphore(inFlight);
        List<Thread> threads = new ArrayList<>();
        switch (workload) {
            case "send" -> {
                for (int at = 0; at < inFlight; at++) {
                    threads.add(new Thread(() -> sends(producer)));
                }
            }
            case "batch" -> {
                for (int at = 0; at < inFlight; at++) {
                    threads.add(new Thread(() -> batches(producer)));
                }
            }
            case "async", "auto" -> threads.add(new Thread(() -> callbacks(producer, room)));
            default -> throw new IllegalArgumentException("no workload " + workload);
        }
        threads.forEach(Thread::start);
        Thread.sleep(millis("warmup"));
        Sample began = Sample.now();
        phase = MEASURED;
        Thread.sleep(millis("seconds"));
        phase = OVER;
        Sample ended = Sample.now();
        for (Thread thread : threads) {
            thread.join();
        }
        // Callbacks that are still to come.
        if (!room.tryAcquire(inFlight, 30, TimeUnit.SECONDS)) {
            return "{\"failed\":\"" + (inFlight - room.availablePermits()) + " calls had no answer 30 s after the end\"}";
        }
        producer.shutdown();

        int[] all = new int[Math.min(calls.get(), LATENCIES)];
        for (int at = 0; at < all.length; at++) {
            all[at] = latencies.get(at);
        }
        Arrays.sort(all);
        return String.format(Locale.ROOT,
            "{\"messages\":%d,\"seconds\":%f,\"cpu_us\":%f,\"p50_ms\":%s,\"p99_ms\":%s,\"acknowledged\":%d,\"errors\":%d,\"error\":%s}",
            measured.get(), ended.seconds(began), ended.cpuMicros(began), quantile(all, 0.5), quantile(all, 0.99),
            acknowledged.get(), errors.get(), quoted(error));
    }

    private static String quantile(int[] sorted, double share) {
        return sorted.length == 0 ? "null" : String.valueOf(sorted[(int) ((sorted.length - 1) * share)] / 1e3);
    }

    private static String quoted(String text) {
        return text == null ? "null" : '"' + text.replaceAll("[\\p{Cntrl}\"\\\\]", " ") + '"';
    }

    /** Single messages, one after the other. */
    private void sends(DefaultMQProducer producer) {
        String topic = text("topic");
        while (phase != OVER) {
            long began = System.nanoTime();
            try {
                stored(producer.send(message(topic)), 1, began);
            } catch (Exception thrown) {
                failed(thrown.toString());
            }
        }
    }

    /** Collections of messages, one after the other. */
    private void batches(DefaultMQProducer producer) {
        String topic = text("topic");
        int size = count("batch");
        while (phase != OVER) {
            long began = System.nanoTime();
            List<Message> batch = new ArrayList<>(size);
            for (int at = 0; at < size; at++) {
                batch.add(message(topic));
            }
            try {
                stored(producer.send(batch), size, began);
            } catch (Exception thrown) {
                failed(thrown.toString());
            }
        }
    }

    /** Single messages with a callback, so many at a time. */
    private void callbacks(DefaultMQProducer producer, Semaphore room) {
        String topic = text("topic");
        while (phase != OVER) {
            room.acquireUninterruptibly();
            long began = System.nanoTime();
            try {
                producer.send(message(topic), new SendCallback() {
                    @Override
                    public void onSuccess(SendResult result) {
                        stored(result, 1, began);
                        room.release();
                    }

                    @Override
                    public void onException(Throwable thrown) {
                        failed(thrown.toString());
                        room.release();
                    }
                });
            } catch (Exception thrown) {
                failed(thrown.toString());
                room.release();
            }
        }
    }

    // ---- Consuming.

    private final AtomicInteger received = new AtomicInteger();
    private final AtomicInteger repeated = new AtomicInteger();
    private final AtomicInteger strange = new AtomicInteger();
    private volatile Sample began;
    private volatile Sample ended;
    private final CountDownLatch done = new CountDownLatch(1);

    private void note(byte[] body, AtomicIntegerArray seen, int warmup) {
        long number = body.length < Long.BYTES ? -1 : ByteBuffer.wrap(body).getLong();
        if (number < 0 || number >= seen.length()) {
            strange.incrementAndGet();
            return;
        }
        if (seen.getAndSet((int) number, 1) != 0) {
            repeated.incrementAndGet();
            return;
        }
        int count = received.incrementAndGet();
        if (count == warmup) {
            began = Sample.now();
        }
        if (count == seen.length()) {
            ended = Sample.now();
            done.countDown();
        }
    }

    private String consume() throws Exception {
        int warmup = count("warmup");
        AtomicIntegerArray seen = new AtomicIntegerArray(count("messages"));
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(text("group"));
        consumer.setNamesrvAddr(text("namesrv"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(text("topic"), "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                note(message.getBody(), seen, warmup);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        done.await(millis("deadline"), TimeUnit.MILLISECONDS);
        consumer.shutdown();
        Sample first = began;
        Sample last = ended;
        boolean all = first != null && last != null;
        return String.format(Locale.ROOT,
            "{\"messages\":%d,\"seconds\":%s,\"cpu_us\":%s,\"received\":%d,\"repeated\":%d,\"strange\":%d}",
            seen.length() - warmup, all ? String.format(Locale.ROOT, "%f", last.seconds(first)) : "null",
            all ? String.format(Locale.ROOT, "%f", last.cpuMicros(first)) : "null", received.get(), repeated.get(), strange.get());
    }
}
