/* Runs a bundle's `serving_default` on one photo with no Python: the proof that a SavedModel stands alone.
 *
 *     TF=$(python -c "import importlib.util as u; print(u.find_spec('tensorflow').submodule_search_locations[0])")
 *     gcc -O2 -I$TF/include export/run_bundle.c -o run_bundle $TF/libtensorflow_cc.so.2 \
 *         $TF/libtensorflow_framework.so.2 -Wl,-rpath,$TF
 *     ./run_bundle runs/mine/served/embedder/1 photo.jpg
 *
 * prints the vector, one number a line, and ends with 0; with 1 if the bundle cannot be loaded or run, with 2 if the
 * file is no photo. It uses the C interface of the libraries in TensorFlow's wheel, 2.15 and later.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

static void fail(const char *what, const char *why) {
  fprintf(stderr, "error: %s: %s\n", what, why);
  exit(1);
}

static void check(TF_Status *status, const char *what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

/* A stretch of bytes; a message of protobuf, a string in one, or a file. */
typedef struct {
  const uint8_t *data;
  size_t size;
} Bytes;

static uint64_t read_varint(Bytes *rest) {
  uint64_t value = 0;
  for (int shift = 0; rest->size > 0 && shift < 64; shift += 7) {
    uint8_t byte = *rest->data++;
    rest->size--;
    value |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) return value;
  }
  fail("the graph's description", "is cut short");
  return 0;
}

static Bytes take(Bytes *rest, uint64_t size) {
  if (size > rest->size) fail("the graph's description", "is cut short");
  Bytes taken = {rest->data, (size_t)size};
  rest->data += size;
  rest->size -= size;
  return taken;
}

/* Moves on to the next field with this number that is a message or a string; 0 at the end. */
static int next_field(Bytes *rest, uint64_t number, Bytes *field) {
  while (rest->size > 0) {
    uint64_t tag = read_varint(rest);
    switch (tag & 7) {
      case 0: read_varint(rest); break;
      case 1: take(rest, 8); break;
      case 5: take(rest, 4); break;
      case 2:
        *field = take(rest, read_varint(rest));
        if (tag >> 3 == number) return 1;
        break;
      default: fail("the graph's description", "has an unknown kind of field");
    }
  }
  return 0;
}

/* The value of a map's entry: field 1 of an entry is its key, field 2 its value. */
static Bytes look_up(Bytes message, uint64_t map, const char *key) {
  Bytes entry, name, value;
  while (next_field(&message, map, &entry)) {
    Bytes first = entry, second = entry;
    if (next_field(&first, 1, &name) && name.size == strlen(key) && !memcmp(name.data, key, name.size) &&
        next_field(&second, 2, &value))
      return value;
  }
  fail("the signature 'serving_default' has no", key);
  return message;
}

/* The tensor that stands for an input (1) or output (2) of a signature, whose TensorInfo has "operation:number". */
static TF_Output find_tensor(TF_Graph *graph, Bytes signature, uint64_t side, const char *name) {
  Bytes info = look_up(signature, side, name), text;
  char operation[1024];
  if (!next_field(&info, 1, &text) || text.size >= sizeof operation) fail(name, "has no tensor");
  memcpy(operation, text.data, text.size);
  operation[text.size] = 0;
  char *colon = strrchr(operation, ':');
  if (!colon) fail(operation, "is no tensor's name");
  *colon = 0;
  TF_Output output = {TF_GraphOperationByName(graph, operation), atoi(colon + 1)};
  if (!output.oper) fail(operation, "is not in the graph");
  return output;
}

static Bytes read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) fail(path, "cannot be read");
  long size = ftell(file);
  uint8_t *data = malloc(size > 0 ? (size_t)size : 1);
  rewind(file);
  if (size < 0 || !data || fread(data, 1, (size_t)size, file) != (size_t)size) fail(path, "cannot be read");
  fclose(file);
  return (Bytes){data, (size_t)size};
}

/* One photo as a batch: a string tensor of shape [1]. */
static TF_Tensor *batch_of(Bytes photo) {
  int64_t one = 1;
  TF_Tensor *tensor = TF_AllocateTensor(TF_STRING, &one, 1, sizeof(TF_TString));
  TF_TString *string = TF_TensorData(tensor);
  TF_StringInit(string);
  TF_StringCopy(string, (const char *)photo.data, photo.size);
  return tensor;
}

int main(int argc, char **argv) {
  if (argc != 3) fail("usage", "run_bundle FOLDER_OF_A_VERSION PHOTO");
  const char *tags[] = {"serve"};
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_Buffer *description = TF_NewBuffer();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, description, status);
  check(status, argv[1]);

  Bytes meta_graph = {description->data, description->length};
  Bytes signature = look_up(meta_graph, 5, "serving_default"); /* MetaGraphDef.signature_def */
  TF_Output input = find_tensor(graph, signature, 1, "image_bytes");
  TF_Output outputs[] = {find_tensor(graph, signature, 2, "embedding"), find_tensor(graph, signature, 2, "ok")};
  TF_Tensor *batch = batch_of(read_file(argv[2])), *answers[2] = {NULL, NULL};
  TF_SessionRun(session, NULL, &input, &batch, 1, outputs, answers, 2, NULL, 0, NULL, status);
  check(status, argv[1]);

  if (!*(unsigned char *)TF_TensorData(answers[1])) {
    fprintf(stderr, "error: %s is no photo\n", argv[2]);
    return 2;
  }
  const float *vector = TF_TensorData(answers[0]);
  for (int64_t row = 0; row < TF_Dim(answers[0], 1); row++) printf("%.9g\n", vector[row]);

  TF_DeleteTensor(batch);
  for (int answer = 0; answer < 2; answer++) TF_DeleteTensor(answers[answer]);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteBuffer(description);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
