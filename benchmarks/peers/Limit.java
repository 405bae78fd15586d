import com.sun.net.httpserver.HttpServer;
import hex.genmodel.MojoModel;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;

/** The printed limit: the JDK's own HTTP server and the model, with one thread. PORT MOJO; a body is [1.0,2.0,...]. */
public class Limit {
    public static void main(String[] arguments) throws Exception {
        MojoModel model = MojoModel.load(arguments[1]);
        double[] predictions = new double[model.getPredsSize()];
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 0);
        server.createContext("/predict", exchange -> {
            String body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.US_ASCII);
            String[] numbers = body.substring(body.indexOf('[') + 1, body.lastIndexOf(']')).split(",");
            double[] row = new double[numbers.length];
            for (int i = 0; i < row.length; i++) {
                row[i] = Double.parseDouble(numbers[i]);
            }
            String answer = "{\"probability\": " + model.score0(row, predictions)[2] + "}";
            byte[] bytes = answer.getBytes(StandardCharsets.US_ASCII);
            exchange.getResponseHeaders().set("Content-Type", "application/json");
            exchange.sendResponseHeaders(200, bytes.length);
            exchange.getResponseBody().write(bytes);
            exchange.close();
        });
        server.start();
    }
}
