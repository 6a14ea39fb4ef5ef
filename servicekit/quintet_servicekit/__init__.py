"""What every Quintet service needs and none should write again.

It knows gRPC, telemetry and settings; it knows no contract and no service.
"""
