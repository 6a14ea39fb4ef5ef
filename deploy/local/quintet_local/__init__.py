"""Quintet on one machine: embedded servers, the five services, their traces."""
