/* What the tests of the C interface run.
 *   dump read INSTANCE ROOT COUNT   prints COUNT results, waiting with poll(2)
 *   dump hold INSTANCE ROOT CAMERA  takes as many frames as it may, reads no result, stays
 *   dump nulls INSTANCE ROOT        calls everything with NULL */
#include <framebus.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, framebus_last_error());
    return 1;
}

static void print(const framebus_result *r) {
    printf("{\"camera\":\"%s\",\"epoch_ns\":%" PRIu64 ",\"sequence\":%" PRIu64
           ",\"result_sequence\":%" PRIu64 ",\"outcome\":%u,\"reason\":\"%s\",\"message\":\"%s\","
           "\"backend\":\"%s\",\"width\":%u,\"height\":%u,\"capture_ns\":%" PRIu64
           ",\"inference_end_ns\":%" PRIu64 ",\"result_ns\":%" PRIu64 ",\"detections\":[",
           r->camera, r->epoch_ns, r->sequence, r->result_sequence, r->outcome, r->reason,
           r->message, r->backend, r->width, r->height, r->times.capture_ns,
           r->times.inference_end_ns, r->times.result_ns);
    for (size_t i = 0; i < r->count; i++) {
        const framebus_detection *d = &r->detections[i];
        printf("%s{\"label\":\"%s\",\"class\":%u,\"score\":%.9g,\"box\":[%.9g,%.9g,%.9g,%.9g]}",
               i ? "," : "", d->label, d->class_id, d->score, d->bbox[0], d->bbox[1], d->bbox[2],
               d->bbox[3]);
    }
    printf("]}\n");
}

static int read_results(framebus_client *client, int count) {
    framebus_results *results;
    if (framebus_results_open(client, &results) != FRAMEBUS_OK)
        return fail("results");
    struct pollfd wait = {.fd = framebus_results_fd(results), .events = POLLIN};
    const framebus_result *kept = NULL;
    while (count > 0) {
        if (poll(&wait, 1, 20000) != 1)
            return fail("poll(2) saw nothing");
        const framebus_result *result;
        int status;
        while ((status = framebus_results_next(results, 0, &result)) == FRAMEBUS_OK) {
            if (count-- > 0)
                print(result);
            framebus_result_free(kept);
            kept = result;
        }
        if (status != FRAMEBUS_NONE)
            return fail("next");
    }
    framebus_counters counters;
    framebus_results_counters(results, &counters);
    printf("{\"lost\":%" PRIu64 ",\"bad_headers\":%" PRIu64 ",\"lag_ns\":%" PRIu64 "}\n",
           counters.lost, counters.bad_headers, counters.lag_ns);
    framebus_results_free(results);
    framebus_client_free(client);
    /* Results outlive everything that they came from. */
    print(kept);
    framebus_result_free(kept);
    return 0;
}

static int hold(framebus_client *client, const char *camera) {
    framebus_results *results;
    framebus_frames *frames;
    if (framebus_results_open(client, &results) != FRAMEBUS_OK ||
        framebus_frames_open(client, camera, &frames) != FRAMEBUS_OK)
        return fail("open");
    const framebus_frame *frame;
    int held = 0, status;
    while ((status = framebus_frames_next(frames, 20000, &frame)) == FRAMEBUS_OK)
        held++;
    if (status != FRAMEBUS_ERROR_HELD)
        return fail("next");
    printf("holding %d: %s\n", held, framebus_last_error());
    fflush(stdout);
    for (;;)
        pause();
}

#define MUST_REFUSE(call)                                                                          \
    if ((call) != FRAMEBUS_ERROR_ARGUMENT || !strstr(framebus_last_error(), " is "))               \
    return fail(#call)

static int nulls(framebus_client *client) {
    framebus_client *other = client;
    framebus_results *results = NULL;
    framebus_frames *frames = NULL;
    framebus_joined *joined = NULL;
    const framebus_frame *frame;
    const framebus_result *result;
    framebus_counters counters;
    int fds[2];
    MUST_REFUSE(framebus_connect(NULL, NULL, &other));
    MUST_REFUSE(framebus_connect("demo", NULL, NULL));
    MUST_REFUSE(framebus_connect("\xff", NULL, &other));
    MUST_REFUSE(framebus_results_open(NULL, &results));
    MUST_REFUSE(framebus_results_open(client, NULL));
    MUST_REFUSE(framebus_results_next(NULL, 0, &result));
    MUST_REFUSE(framebus_results_fd(NULL));
    MUST_REFUSE(framebus_results_counters(NULL, &counters));
    MUST_REFUSE(framebus_frames_open(NULL, "red", &frames));
    MUST_REFUSE(framebus_frames_open(client, NULL, &frames));
    MUST_REFUSE(framebus_frames_open(client, "red", NULL));
    MUST_REFUSE(framebus_frames_next(NULL, 0, &frame));
    MUST_REFUSE(framebus_frames_fd(NULL));
    MUST_REFUSE(framebus_frames_counters(NULL, &counters));
    MUST_REFUSE(framebus_joined_open(client, NULL, &joined));
    MUST_REFUSE(framebus_joined_next(NULL, 0, &frame, &result));
    MUST_REFUSE(framebus_joined_fds(NULL, &fds[0], &fds[1]));
    MUST_REFUSE(framebus_joined_counters(NULL, &counters));
    if (other != NULL)
        return fail("a handle from a call that failed");
    if (framebus_frames_open(client, "nocam", &frames) != FRAMEBUS_ERROR_ABSENT || frames)
        return fail("nocam");
    if (framebus_results_open(client, &results) != FRAMEBUS_OK)
        return fail("results");
    MUST_REFUSE(framebus_results_next(results, 0, NULL));
    MUST_REFUSE(framebus_results_counters(results, NULL));
    if (framebus_joined_open(client, "red", &joined) != FRAMEBUS_OK ||
        framebus_joined_fds(joined, &fds[0], &fds[1]) != FRAMEBUS_OK || fds[0] == fds[1])
        return fail("joined");
    MUST_REFUSE(framebus_joined_next(joined, 0, NULL, &result));
    MUST_REFUSE(framebus_joined_next(joined, 0, &frame, NULL));
    /* The streams and what they gave go on without their client, and in any order. */
    framebus_client_free(client);
    if (framebus_joined_next(joined, 20000, &frame, &result) != FRAMEBUS_OK)
        return fail("joined_next");
    framebus_joined_free(joined);
    framebus_results_free(results);
    printf("%s #%d of %s: %s, luma %d\n", frame->camera, frame->sequence == result->sequence,
           result->camera, result->reason, frame->planes[0][0]);
    framebus_frame_free(frame);
    framebus_result_free(result);
    framebus_client_free(NULL);
    framebus_results_free(NULL);
    framebus_frames_free(NULL);
    framebus_joined_free(NULL);
    framebus_frame_free(NULL);
    framebus_result_free(NULL);
    printf("refused everything\n");
    return 0;
}

int main(int argc, char **argv) {
    framebus_client *client;
    if (argc < 4 || framebus_abi_version() != FRAMEBUS_ABI_VERSION)
        return 2;
    if (framebus_connect("absent", argv[3], &client) != FRAMEBUS_ERROR_ABSENT || client)
        return fail("an instance that is not there");
    if (framebus_connect(argv[2], argv[3], &client) != FRAMEBUS_OK)
        return fail("connect");
    if (argc > 4 && strcmp(argv[1], "read") == 0)
        return read_results(client, atoi(argv[4]));
    if (argc > 4 && strcmp(argv[1], "hold") == 0)
        return hold(client, argv[4]);
    return nulls(client);
}
