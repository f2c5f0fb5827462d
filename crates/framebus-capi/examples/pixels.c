/* Touches the pixels, in place: prints the mean brightness of one camera's frames, and
 * what was found in them. `./pixels demo street` */
#include <framebus.h>
#include <stdio.h>

static double mean(const framebus_frame *frame) {
    size_t row = (size_t)frame->width * (frame->format == FRAMEBUS_FORMAT_NV12 ? 1 : 3);
    uint64_t sum = 0;
    for (size_t y = 0; y < frame->height; y++)
        for (size_t x = 0; x < row; x++)
            sum += frame->planes[0][y * frame->strides[0] + x];
    return (double)sum / ((double)row * frame->height);
}

int main(int argc, char **argv) {
    framebus_client *client = NULL;
    framebus_joined *pairs = NULL;
    const framebus_frame *frame = NULL;
    const framebus_result *result = NULL;
    if (framebus_connect(argc > 1 ? argv[1] : "default", NULL, &client) == FRAMEBUS_OK &&
        framebus_joined_open(client, argc > 2 ? argv[2] : "front", &pairs) == FRAMEBUS_OK) {
        while (framebus_joined_next(pairs, -1, &frame, &result) == FRAMEBUS_OK) {
            framebus_counters counters;
            framebus_joined_counters(pairs, &counters);
            printf("%s #%llu mean %.1f [", frame->camera, (unsigned long long)frame->sequence,
                   mean(frame));
            for (size_t i = 0; i < result->count; i++)
                printf("%s%s", i ? "," : "", result->detections[i].label);
            printf("], %llu lost\n", (unsigned long long)counters.lost);
            framebus_frame_free(frame);
            framebus_result_free(result);
            fflush(stdout);
        }
    }
    fprintf(stderr, "%s\n", framebus_last_error());
    return 1;
}
