// Fetches a URL with Java's own HTTP client and prints the status and the body, or the error.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

public class Get {
    public static void main(String[] arguments) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
        try {
            var response = HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
            System.out.println(response.statusCode() + " " + response.body());
        } catch (java.io.IOException error) {
            System.out.println("0 " + error);
        }
    }
}
